"""The system calls that nothing in a sandbox may make, as a BPF program for bubblewrap to load.

A list of what is refused, because agents run any program: what reaches the kernel's newer or privileged
corners (mounts, namespaces, io_uring, bpf, keys, modules), what an engine's own filter has let through
(AF_VSOCK), and what could type into a terminal. `clone3` hides its flags behind a pointer, so it answers
ENOSYS and libraries fall back to `clone`, whose flags can be seen.
"""

import errno
import os
import struct

_NEW = {  # the same number everywhere
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "open_tree_attr": 467,
}
_ABSENT = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "clone3": 435}
_REFUSED: tuple[tuple[str, int, int], ...] = (  # name, number on x86-64, number on arm64
    ("acct", 163, 89),
    ("add_key", 248, 217),
    ("bpf", 321, 280),
    ("chroot", 161, 51),
    ("clock_adjtime", 305, 266),
    ("delete_module", 176, 106),
    ("fanotify_init", 300, 262),
    ("finit_module", 313, 273),
    ("init_module", 175, 105),
    ("kcmp", 312, 272),
    ("kexec_file_load", 320, 294),
    ("kexec_load", 246, 104),
    ("keyctl", 250, 219),
    ("lookup_dcookie", 212, 18),
    ("mount", 165, 40),
    ("move_pages", 279, 239),
    ("name_to_handle_at", 303, 264),
    ("nfsservctl", 180, 42),
    ("open_by_handle_at", 304, 265),
    ("perf_event_open", 298, 241),
    ("pivot_root", 155, 41),
    ("process_vm_readv", 310, 270),
    ("process_vm_writev", 311, 271),
    ("quotactl", 179, 60),
    ("reboot", 169, 142),
    ("request_key", 249, 218),
    ("setns", 308, 268),
    ("settimeofday", 164, 170),
    ("swapoff", 168, 225),
    ("swapon", 167, 224),
    ("syslog", 103, 116),
    ("umount2", 166, 39),
    ("unshare", 272, 97),
    ("userfaultfd", 323, 282),
    ("vhangup", 153, 58),
)
_CLONE, _IOCTL, _SOCKET = (56, 220), (16, 29), (41, 198)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32_BIT = 0x40000000

_NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_FAMILIES = (1, 2, 10, 16)  # unix, IPv4, IPv6, netlink (which getaddrinfo asks)

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data


def program() -> bytes:
    """The filter for this machine's architecture. Raises KeyError for one that nobody has listed."""
    column, audit = _ARCHITECTURES[os.uname().machine]
    refused = [row[1:][column] for row in _REFUSED] + list(_NEW.values())
    parts = [
        _op(_LOAD, _ARCHITECTURE),
        _op(_EQUAL, audit, 1, 0),
        _refuse(errno.ENOSYS),
        _op(_LOAD, _NUMBER),
        _op(_AT_LEAST, _X32_BIT, 0, 1),
        _refuse(errno.ENOSYS),
        *(_when(number, _refuse(errno.ENOSYS)) for number in _ABSENT.values()),
        *(_when(number, _refuse(errno.EPERM)) for number in refused),
        _when(_CLONE[column], _argument(0) + _unless_bits(_NAMESPACE_FLAGS)),
        _when(_IOCTL[column], _argument(1) + _unless_equal(_TIOCSTI, _TIOCLINUX)),
        _when(_SOCKET[column], _argument(0) + _only(_FAMILIES, errno.EAFNOSUPPORT)),
        _op(_RETURN, _ALLOW),
    ]
    return b"".join(parts)


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _refuse(code: int) -> bytes:
    return _op(_RETURN, _ERRNO | code)


def _when(number: int, body: bytes) -> bytes:
    return _op(_EQUAL, number, 0, len(body) // 8) + body


def _argument(index: int) -> bytes:
    return _op(_LOAD, _ARGUMENTS + 8 * index)


def _unless_bits(mask: int) -> bytes:
    return _op(_ANY_BIT, mask, 0, 1) + _refuse(errno.EPERM) + _op(_RETURN, _ALLOW)


def _unless_equal(*values: int) -> bytes:
    tests = b"".join(_op(_EQUAL, value, 0, 1) + _refuse(errno.EPERM) for value in values)
    return tests + _op(_RETURN, _ALLOW)


def _only(values: tuple[int, ...], code: int) -> bytes:
    tests = b"".join(_op(_EQUAL, value, 0, 1) + _op(_RETURN, _ALLOW) for value in values)
    return tests + _refuse(code)
