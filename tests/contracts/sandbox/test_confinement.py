"""What nobody in a sandbox may see, reach or do (guarantee G13; hostile inputs H and K)."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from tests.contracts.sandbox.conftest import pids_under, python, shell
from zene.sandbox.base import INSIDE_UID, Sandbox, Spec
from zene.sandbox.bwrap import BubblewrapProvider

DECLARED = {
    "root": {
        "cpu",
        "memory",
        "pids",
        "open_files",
        "disk",
        "inodes",
        "network",
        "users",
        "seccomp",
    },
    "an ordinary user": {"open_files", "network", "seccomp"},
}

REFUSED = {  # a program that must print an errno's name, and which
    "a user namespace by unshare": ("libc.unshare(0x10000000)", "EPERM"),
    "a mount namespace by unshare": ("libc.unshare(0x20000)", "EPERM"),
    "a user namespace by clone": ("libc.syscall(56, 0x10000011, 0, 0, 0, 0)", "EPERM"),
    "clone3": ("libc.syscall(435, 0, 0)", "ENOSYS"),
    "setns": ("libc.setns(0, 0)", "EPERM"),
    "mount": ("libc.mount(b'none', b'/tmp', b'tmpfs', 0, 0)", "EPERM"),
    "umount": ("libc.umount2(b'/workspace', 2)", "EPERM"),
    "fsopen": ("libc.syscall(430, b'tmpfs', 0)", "EPERM"),
    "open_tree": ("libc.syscall(428, -100, b'/', 1)", "EPERM"),
    "move_mount": ("libc.syscall(429, 0, b'', 0, b'', 0)", "EPERM"),
    "mount_setattr": ("libc.syscall(442, -100, b'/', 0, 0, 0)", "EPERM"),
    "pivot_root": ("libc.syscall(155, b'/', b'/')", "EPERM"),
    "chroot": ("libc.chroot(b'/')", "EPERM"),
    "io_uring": ("libc.syscall(425, 1, 0)", "ENOSYS"),
    "bpf": ("libc.syscall(321, 0, 0, 0)", "EPERM"),
    "perf": ("libc.syscall(298, 0, 0, 0, 0, 0)", "EPERM"),
    "keys": ("libc.syscall(250, 0, -3, 0)", "EPERM"),
    "userfaultfd": ("libc.syscall(323, 0)", "EPERM"),
    "another's memory": ("libc.process_vm_readv(1, 0, 0, 0, 0, 0)", "EPERM"),
    "typing into a terminal": ("libc.ioctl(0, 0x5412, b'x')", "EPERM"),
    "typing, with high bits set": ("libc.ioctl(0, ctypes.c_ulong(0x100005412), b'x')", "EPERM"),
    "tracing PID 1": ("libc.ptrace(16, 1, 0, 0)", "EPERM"),
    "another user": ("libc.setuid(0)", "EINVAL"),
    "the clock": ("libc.syscall(164, 0, 0)", "EPERM"),
    "a 32-bit system call": ("libc.syscall(0x40000000 + 39)", "ENOSYS"),
    "vsock": ("libc.socket(40, 1, 0)", "EAFNOSUPPORT"),
    "packets": ("libc.socket(17, 3, 768)", "EAFNOSUPPORT"),
    "bluetooth": ("libc.socket(31, 1, 0)", "EAFNOSUPPORT"),
    "raw packets": ("libc.socket(2, 3, 1)", "EPERM"),
    "a device": ("libc.mknod(b'/tmp/device', 0o20666, 0x103)", "EPERM"),
}


def test_a_backend_declares_what_it_must(provider: BubblewrapProvider) -> None:
    who = "root" if os.geteuid() == 0 else "an ordinary user"
    capabilities = provider.capabilities
    assert capabilities.commands
    assert capabilities.enforced == DECLARED[who]
    assert capabilities.enforced | capabilities.missing.keys() == DECLARED["root"]
    assert all(capabilities.missing.values())


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
async def test_what_reaches_the_kernels_corners_is_refused(sandbox: Sandbox) -> None:
    tries = "\n".join(
        f"ctypes.set_errno(0); result = {call}; print({name!r}, result, errno.errorcode.get(ctypes.get_errno()))"
        for name, (call, _) in REFUSED.items()
    )
    ran = await python(
        sandbox, f"import ctypes, errno\nlibc = ctypes.CDLL(None, use_errno=True)\n{tries}"
    )
    assert ran.text.splitlines() == [f"{name} -1 {code}" for name, (_, code) in REFUSED.items()]


async def test_ordinary_programs_work_under_the_filter(sandbox: Sandbox) -> None:
    script = (
        "import threading, socket, multiprocessing.pool, subprocess\n"
        "thread = threading.Thread(target=print, args=('thread',)); thread.start(); thread.join()\n"
        "server = socket.create_server(('127.0.0.1', 0)); client = socket.create_connection(server.getsockname())\n"
        "print('loopback', subprocess.run(['echo', 'child'], capture_output=True).stdout)\n"
        "import pty, os; print('pty', os.ttyname(pty.openpty()[1]))\n"
        "print(socket.gethostbyname('localhost'))"
    )
    ran = await shell(sandbox, f'/usr/bin/python3 -c "{script}"')
    assert ran.text == "thread\nloopback b'child\\n'\npty /dev/pts/0\n127.0.0.1\n"


@pytest.mark.parametrize(
    "name", ["environ", "mem", "maps", "fd", "cwd", "root", "exe", "auxv", "stack"]
)
async def test_the_runner_cannot_be_looked_into(sandbox: Sandbox, name: str) -> None:
    ran = await shell(
        sandbox, f"head -c1 /proc/1/{name} || ls /proc/1/{name}/ || readlink /proc/1/{name}"
    )
    assert ran.exit.code != 0
    assert "enied" in ran.text or "not permitted" in ran.text


@pytest.mark.parametrize("signal", ["INT", "TERM", "KILL", "STOP", "HUP", "SEGV", "CHLD", "USR1"])
async def test_the_runner_bears_every_signal(sandbox: Sandbox, signal: str) -> None:
    await shell(sandbox, f"for i in 1 2 3 4 5; do kill -{signal} 1; done")
    assert (await shell(sandbox, "echo alive")).text == "alive\n"


async def test_the_runner_cannot_be_changed(sandbox: Sandbox) -> None:
    ran = await shell(
        sandbox, "find /.zene /etc /usr/bin /dev -maxdepth 4 -writable -type f; echo x > /.zene/x"
    )
    assert ran.exit.code != 0
    assert "Read-only file system" in ran.text
    assert "/.zene/zene" not in ran.text


async def test_a_command_inherits_nothing_of_the_runner(sandbox: Sandbox) -> None:
    assert (
        await shell(
            sandbox, "ls /proc/$$/fd; echo; tr '\\0' '\\n' < /proc/$$/environ | cut -d= -f1 | sort"
        )
    ).text == (
        "0\n1\n2\n\nHOME\nLANG\nLOGNAME\nPATH\nPWD\nSHELL\nTMPDIR\nUSER\n".replace("PWD\n", "")
    )


async def test_no_right_is_held_and_none_can_be_gained(sandbox: Sandbox) -> None:
    ran = await shell(sandbox, "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status")
    values = dict(line.split(":\t") for line in ran.text.splitlines())
    assert {values[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (values["NoNewPrivs"], values["Seccomp"]) == ("1", "2")


async def test_a_setuid_file_runs_as_its_caller(sandbox: Sandbox) -> None:
    ran = await shell(sandbox, "cp /usr/bin/id own; chmod 6755 own; ./own -u; su -c id; true")
    assert ran.text.startswith(f"{INSIDE_UID}\n")
    assert "uid=0" not in ran.text


async def test_only_the_sandboxes_own_processes_are_seen(sandbox: Sandbox) -> None:
    ran = await shell(
        sandbox, "ls /proc | grep -c '^[0-9]'; kill -0 $(seq 5 2000) 2>/dev/null; hostname"
    )
    count, host = ran.text.split()
    assert int(count) <= 5
    assert host == "zene"


async def test_nothing_of_the_host_is_shown(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("planted")
    ran = await shell(
        sandbox, f"ls /; cat {tmp_path}/secret /etc/shadow; ls /root /var /run /sys /home"
    )
    shown = set(ran.text.split("\ncat:")[0].split())
    assert shown <= {
        "bin",
        "dev",
        "etc",
        "home",
        "lib",
        "lib32",
        "lib64",
        "proc",
        "sbin",
        "tmp",
        "usr",
        "workspace",
    }
    assert "planted" not in ran.text
    assert ran.text.endswith("/home:\nzene\n")


async def test_only_the_sessions_folders_can_be_written(sandbox: Sandbox) -> None:
    script = (
        "for p in / /usr /usr/local /etc /dev /home /proc /.zene /dev/shm /tmp /workspace $HOME; do"
        " (touch $p/.try) 2>/dev/null && echo $p; done"
    )
    assert (await shell(sandbox, script)).text.split() == [
        "/dev/shm",
        "/tmp",
        "/workspace",
        "/home/zene",
    ]


async def test_memory_file_systems_have_a_size(provider: BubblewrapProvider) -> None:
    sandbox = await provider.open(Spec(label="bare", folders=()))
    script = "for p in /tmp $HOME /dev/shm; do head -c 100M /dev/zero > $p/big || stat -c %s $p/big; rm $p/big; done"
    sizes = [
        int(line) for line in (await shell(sandbox, script)).text.splitlines() if line.isdigit()
    ]
    assert len(sizes) == 3
    assert max(sizes) <= 64 << 20


async def test_there_is_no_network_but_its_own_loopback(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = (
            "import socket\n"
            "for host in ('127.0.0.1', '10.0.0.1', '169.254.169.254', '1.1.1.1'):\n"
            " try: socket.create_connection((host, PORT), 2); print('REACHED', host)\n"
            " except OSError: pass\n"
            "try: socket.getaddrinfo('example.com', 80); print('RESOLVED')\n"
            "except OSError: print('alone')\n"
        ).replace("PORT", str(port))
        assert (await shell(sandbox, f'/usr/bin/python3 -c "{script}"')).text == "alone\n"


async def test_abstract_sockets_of_the_host_are_out_of_reach(sandbox: Sandbox) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0zene-test-abstract")
        server.listen()
        script = (
            "import socket\n"
            "try: socket.socket(socket.AF_UNIX).connect(chr(0) + 'zene-test-abstract'); print('REACHED')\n"
            "except OSError as err: print(type(err).__name__)"
        )
        assert (
            await shell(sandbox, f'/usr/bin/python3 -c "{script}"')
        ).text == "ConnectionRefusedError\n"


async def test_two_sandboxes_share_nothing(provider: BubblewrapProvider, spec: Spec) -> None:
    one = await provider.open(spec)
    other = await provider.open(Spec(label="other", folders=()))
    made = "ipcmk -M 4096 >/dev/null; touch /dev/shm/x; sleep 1000 > /dev/null 2>&1 &"
    await shell(one, made)
    ran = await shell(other, "ipcs -m | grep -c 0x; ls /dev/shm; pgrep -x sleep; ls /workspace")
    assert ran.text == "0\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="host users need root")
async def test_each_sandbox_has_a_host_user_of_its_own_who_sees_no_other(
    provider: BubblewrapProvider, spec: Spec, installation: str
) -> None:
    sandbox = await provider.open(spec)
    other = await provider.open(Spec(label="other", folders=()))
    await shell(sandbox, "echo planted > secret; chmod 666 secret; chmod 777 .")
    pids = {label: runner_pid(installation, label) for label in ("session", "other")}
    assert (await shell(other, "true")).exit.code == 0
    look = f"cd /proc/{pids['session']}/root && cat workspace/secret; kill -0 {pids['session']}"
    assert "planted" not in await as_host_user(uid_of(pids["other"]), look)
    assert uid_of(pids["session"]) != uid_of(pids["other"])
    assert min(uid_of(pid) for pid in pids.values()) >= 200_000


def runner_pid(installation: str, label: str) -> int:
    """PID 1 of a sandbox, as the host numbers it."""
    found = map(str, pids_under(installation, label))
    return max(
        int(pid) for pid in found if b"zene.sandbox.runner" in cmdline(pid) and is_first(pid)
    )


def cmdline(pid: str) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def is_first(pid: str) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return status.partition("NSpid:")[2].splitlines()[0].split()[-1] == "1"


def uid_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("Uid:")[2].split()[0])


async def as_host_user(uid: int, script: str) -> str:
    """What a process of the host that got hold of the user would see."""
    process = await asyncio.create_subprocess_exec(
        "setpriv",
        f"--reuid={uid}",
        f"--regid={uid}",
        "--clear-groups",
        "/bin/sh",
        "-c",
        script,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees another user's files")
async def test_the_runner_holds_no_folder_open(
    provider: BubblewrapProvider, spec: Spec, installation: str
) -> None:
    await shell(await provider.open(spec), "true")
    pid = runner_pid(installation, spec.label)
    assert open_kinds(pid) <= {
        "socket",
        "pipe",
        "anon_inode",
        "/proc/1/oom_score_adj",
        f"/proc/{pid}/oom_score_adj",
    }


def open_kinds(pid: int) -> set[str]:
    return {str(entry.readlink()).partition(":")[0] for entry in Path(f"/proc/{pid}/fd").iterdir()}
