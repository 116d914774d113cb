"""What a sandbox sees: the arguments for bubblewrap, and the few files of our own that it shows.

The root is an empty, read-only file system with the host's `/usr` in it, an `/etc` of our own, and mount
points. Everything that can be written has a cap: a session's folders, or small file systems in memory.
"""

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from zene.domain.errors import SetupError
from zene.sandbox import seccomp
from zene.sandbox.base import INSIDE_UID, MEBIBYTE, Folder, Spec
from zene.sandbox.launcher import FILTER_FD

HOME = "/home/zene"
WORKSPACE = "/workspace"
TEMPORARY = "/tmp"  # noqa: S108 - the sandbox's own
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": HOME,
    "TMPDIR": TEMPORARY,
    "LANG": "C.UTF-8",
    "USER": "zene",
    "LOGNAME": "zene",
    "SHELL": "/bin/bash",
}

_BWRAP = Path("/usr/bin/bwrap")
_PYTHON = Path("/usr/bin/python3")
_SOURCE = Path(__file__).with_name("runner")
_RUNNER = "/.zene"
_PACKAGE = Path("zene/sandbox/runner")
_TMPFS_BYTES = 64 * MEBIBYTE
_SHM_BYTES = 16 * MEBIBYTE
_SHOWN_OF_ETC = ("ld.so.cache", "alternatives", "ssl/certs")  # bound, so that updates show
_COPIED_OF_ETC = ("ld.so.conf", "mime.types", "protocols", "services", "localtime", "os-release")
_COMPILE = """
import os, py_compile, sys
source, target = sys.argv[1:]
unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
for name in os.listdir(source):
    stem, dot, kind = name.partition(".")
    if kind == "py":
        compiled = os.path.join(target, stem + ".pyc")
        py_compile.compile(os.path.join(source, name), compiled, name, True, invalidation_mode=unchecked)
"""
_START = (
    f"import sys; sys.path.insert(0, {_RUNNER!r});"
    "from zene.sandbox.runner.supervisor import main; main()"
)


def prepare(folder: Path) -> None:
    """Write what every sandbox needs into `folder`, which must be reachable by all. Raises SetupError.

    It costs some milliseconds, and where it was done before for the same runner and Python, less.
    """
    if not _BWRAP.exists():
        raise SetupError("sandboxes need bubblewrap: apt install bubblewrap")
    if not _PYTHON.exists():
        raise SetupError(
            "sandboxes run on the host's /usr/bin/python3: apt install python3-minimal"
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    etc = folder / "etc"
    for name in ("etc", "etc/ssl/certs", "etc/alternatives"):
        (folder / name).mkdir(parents=True, exist_ok=True, mode=0o755)
    for name, text in _etc_files().items():
        _write(etc / name, text.encode())
    for name in _COPIED_OF_ETC:
        _copy(Path("/etc") / name, etc / name)
    _write(filter_in(folder), seccomp.program())
    _compile(folder)
    _let_all_read(folder)


def arguments(spec: Spec, folder: Path, *, bind_folders: bool) -> list[str]:
    """The command line that starts the runner. Folders and libraries are bound, or only given a place."""
    targets = {shown.target for shown in spec.folders}
    shown = [
        [
            str(_BWRAP),
            "--unshare-all",
            "--as-pid-1",
            "--die-with-parent",
            "--hostname",
            "zene",
            "--seccomp",
            str(FILTER_FD),
        ],
        ["--uid", str(INSIDE_UID), "--gid", str(INSIDE_UID), "--ro-bind", "/usr", "/usr"],
        *(_as_on_host(Path("/", name)) for name in ("bin", "sbin", "lib", "lib32", "lib64")),
        ["--ro-bind", str(folder / "etc"), "/etc"],
        *(["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"] for name in _SHOWN_OF_ETC),
        ["--ro-bind", str(_compiled(folder)), _RUNNER],
        ["--proc", "/proc", "--dev", "/dev"],
        ["--size", str(_SHM_BYTES), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"],  # noqa: S108
        *(_memory_folder(target) for target in (HOME, TEMPORARY) if target not in targets),
        ["--dir", WORKSPACE],
        *(_folder(entry, bind=bind_folders) for entry in spec.folders),
        *(_library(path, bind=bind_folders) for path in spec.read_only_paths),
        ["--remount-ro", "/", "--chdir", "/", "--", str(_PYTHON), "-I", "-S", "-c", _START],
    ]
    return [word for words in shown for word in words]


def filter_in(folder: Path) -> Path:
    """The file of the filter of system calls; bubblewrap loads it from FILTER_FD."""
    return folder / "filter.bpf"


def is_shown_already(path: Path) -> bool:
    """Whether the sandbox sees the host's path anyway."""
    return path.is_relative_to("/usr")


def _as_on_host(path: Path) -> list[str]:
    if path.is_symlink():
        return ["--symlink", str(path.readlink()), str(path)]
    return ["--ro-bind", str(path), str(path)] if path.is_dir() else []


def _memory_folder(target: str) -> list[str]:
    return ["--size", str(_TMPFS_BYTES), "--tmpfs", target]


def _folder(entry: Folder, *, bind: bool) -> list[str]:
    if bind:
        return ["--ro-bind" if entry.read_only else "--bind", entry.path, entry.target]
    return ["--dir", entry.target]


def _library(path: Path, *, bind: bool) -> list[str]:
    if is_shown_already(path):
        return []
    return ["--ro-bind", str(path), str(path)] if bind else ["--dir", str(path)]


def _etc_files() -> dict[str, str]:
    return {
        "passwd": f"root:x:0:0::/:/usr/sbin/nologin\nzene:x:{INSIDE_UID}:{INSIDE_UID}::{HOME}:/bin/bash\n",
        "group": f"root:x:0:\nzene:x:{INSIDE_UID}:\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
        "hosts": "127.0.0.1 localhost zene\n::1 localhost\n",
        "hostname": "zene\n",
        "ld.so.cache": "",
    }


def _write(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        new = _beside(path)
        new.write_bytes(content)
        new.replace(path)


def _copy(source: Path, target: Path) -> None:
    if source.is_symlink():
        new = _beside(target)
        new.symlink_to(source.parent / source.readlink())
        new.replace(target)
    elif source.is_file():
        _write(target, source.read_bytes())


def _compile(folder: Path) -> None:
    """Compile the runner by the Python that will run it."""
    target = _compiled(folder)
    if target.exists():
        return
    new = _beside(target)
    package = new / _PACKAGE
    package.mkdir(parents=True)
    for parent in (package.parent, package.parent.parent):
        (parent / "__init__.py").touch()
    command = [str(_PYTHON), "-I", "-S", "-c", _COMPILE, str(_SOURCE), str(package)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=30)  # noqa: S603 - ours
    except (OSError, subprocess.SubprocessError) as err:
        raise SetupError(f"/usr/bin/python3 cannot compile the sandbox's runner: {err}") from err
    try:
        new.rename(target)
    except OSError:  # another server of this host was faster
        shutil.rmtree(new)


def _let_all_read(folder: Path) -> None:
    """Whatever the server's umask: what is here is read by every sandbox's host user."""
    if os.geteuid() == 0:
        folder.parent.chmod(0o755)
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)


@cache
def _compiled(folder: Path) -> Path:
    """Where the compiled runner is: a name that changes with its source and with the Python, but not while
    this process lives, which has compiled it.
    """
    python = _PYTHON.resolve()
    digest = hashlib.sha256(f"{python} {python.stat().st_mtime_ns}".encode())
    for file in sorted(_SOURCE.glob("*.py")):
        digest.update(file.read_bytes())
    return folder / f"runner-{digest.hexdigest()[:16]}"


def _beside(path: Path) -> Path:
    """A name in the same folder: written there and then renamed, a file is never seen half."""
    return path.with_name(f".{path.name}.{os.getpid()}")
