"""Keeping a process off the network: refused by the kernel where it can be, by Python elsewhere.

On Linux (x86-64 and ARM64) a seccomp filter refuses, for the rest of this process's life and in
every process it starts, to make a socket of any family but AF_UNIX, which never leaves the machine.
Native code is held by it as Python is. Elsewhere, and in addition, an audit hook of Python refuses
what Python's own socket functions ask for, with a message that says so.

What is not prevented: a socket that was open before, or that another process of this machine hands
over or forwards to through a Unix socket. See docs/security.md.

Sources: linux/filter.h, linux/seccomp.h, linux/audit.h; seccomp(2), prctl(2), PEP 578.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
import sys
from collections.abc import Mapping
from typing import Any, Final, Literal

Guard = Literal["seccomp", "audit hook"]

MEANING: Final[dict[str, str]] = {
    "seccomp": "the kernel refused these processes, and all that they started, every socket but "
    "those that stay on this machine (AF_UNIX)",
    "audit hook": "Python refused these processes every socket but those that stay on this machine "
    "(AF_UNIX); the kernel did not, so native code could have made one",
    "none": "nothing held all that had the records: a Ray cluster carries them over its network",
}
"""What each guard means, strongest first; "none": of chunks that were done on a Ray cluster."""

_UNIX: Final = 1  # AF_UNIX

_CALLS: Final = {
    # machine: its AUDIT_ARCH, the number of seccomp, those of calls refused unless the first
    # argument is AF_UNIX (socket, socketpair), and of those refused at all: io_uring_setup, which
    # makes sockets without a call; pidfd_getfd and ptrace, which take those of others.
    "x86_64": (0xC000003E, 317, (41, 53), (425, 438, 101)),
    "aarch64": (0xC00000B7, 277, (198, 199), (425, 438, 117)),
}
_X32: Final = 0x40000000  # the bit in the numbers of a second set of calls on x86-64

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD+W+ABS, JMP+JEQ+K, JGE, RET
_NUMBER, _ARCH, _FIRST = 0, 4, 16  # offsets in seccomp_data: nr, arch, low half of args[0]
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EACCES

_NO_NEW_PRIVS: Final = 38  # PR_SET_NO_NEW_PRIVS
_SET_FILTER: Final = 1  # SECCOMP_SET_MODE_FILTER
# TSYNC: in all threads. SPEC_ALLOW (Linux 4.17): older kernels slow down whoever has a filter, as a
# defence against programs that spy by speculation, and this is not there to hold such a program.
_FLAGS: Final = (1 | 4, 1)

_WATCHED: Final = frozenset(
    "socket." + name
    for name in (
        "connect", "bind", "sendto", "sendmsg",
        "getaddrinfo", "gethostbyname", "gethostbyaddr", "getnameinfo",
    )
)  # fmt: skip


_held: Guard | None = None


def guard() -> Guard:
    """Keep this process and those it starts off the network, for good; which guard holds it.

    Only for processes that are edgemod's own: nothing undoes it. A second call does nothing.
    """
    global _held
    if _held is None:
        _held = "seccomp" if _seccomp() else "audit hook"
        sys.addaudithook(_refuse)
    return _held


def held() -> str:
    """Which guard holds this process; "none" where ``guard`` was not called."""
    return _held or "none"


def attestation(records: Mapping[str, int]) -> dict[str, Any]:
    """What report.json says of a run, from its records by the guard of the worker that did them.

    ``guard``: the weakest of them. ``parent``: that of this process, which reads the input and
    writes the report; "none" where edgemod is a library in a program, which it must not hold, and
    where it must reach a Ray cluster.
    """
    known = [*MEANING]
    strange = not records or not {*records} <= {*known}
    weakest = "none" if strange else max(records, key=known.index)
    meaning = "nothing is known of them" if strange else MEANING[weakest]
    return {
        "guard": weakest,
        "records": dict(records),
        "parent": held(),
        "meaning": f"of the worker processes: {meaning}",
    }


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Raise PermissionError, as the kernel's answer does, for what would reach a network."""
    if event == "socket.__new__":
        if arguments[1] in (_UNIX, -1):  # -1: of a descriptor that is there, or the default
            return
    elif event not in _WATCHED or _family(arguments) == _UNIX:
        return
    raise PermissionError(errno.EACCES, "edgemod keeps this process off the network", event)


def _family(arguments: tuple[Any, ...]) -> int | None:
    return getattr(arguments[0], "family", None)


def _seccomp() -> bool:
    """Install the filter in every thread of this process; whether the kernel took it."""
    machine = _CALLS.get(platform.machine())
    if not sys.platform.startswith("linux") or machine is None or struct.calcsize("P") != 8:
        return False
    import ctypes

    class Program(ctypes.Structure):  # struct sock_fprog
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    code = program(machine)
    held = Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    whole = ctypes.c_ulong
    if libc.prctl(_NO_NEW_PRIVS, whole(1), whole(0), whole(0), whole(0)):
        return False
    number = ctypes.c_long(machine[1])
    return any(
        libc.syscall(number, whole(_SET_FILTER), whole(flags), ctypes.byref(held)) == 0
        for flags in _FLAGS
    )


def program(machine: tuple[int, int, tuple[int, ...], tuple[int, ...]]) -> bytes:
    """The filter for one entry of ``_CALLS``: struct sock_filter, 8 bytes each.

    In words: another architecture's calls and x32's are refused; those that are never allowed are
    refused; socket and socketpair are allowed for AF_UNIX; everything else is allowed.
    """
    arch, _, sockets, never = machine
    # (code, jump if true, jump if false, k); a jump is a name until its distance is known.
    steps: list[tuple[int, str, str, int]] = [
        (_LOAD, "", "", _ARCH),
        (_EQUAL, "", "refuse", arch),
        (_LOAD, "", "", _NUMBER),
        (_AT_LEAST, "refuse", "", _X32),
        *((_EQUAL, "refuse", "", number) for number in never),
        *((_EQUAL, "family", "", number) for number in sockets),
        (_RETURN, "", "", _ALLOW),
        (_LOAD, "", "", _FIRST),
        (_EQUAL, "", "refuse", _UNIX),
        (_RETURN, "", "", _ALLOW),
        (_RETURN, "", "", _REFUSE),
    ]
    places = {"family": len(steps) - 4, "refuse": len(steps) - 1}

    def distance(here: int, name: str) -> int:
        return places[name] - here - 1 if name else 0

    return b"".join(
        struct.pack("=HBBI", code, distance(here, true), distance(here, false), k)
        for here, (code, true, false, k) in enumerate(steps)
    )


def answer() -> str:
    """What the kernel answers to a socket for the internet, asked past Python: for the check-up.

    "made" if it makes one (closed at once), else the name of the error.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    made = libc.socket(2, 1, 0)  # AF_INET, SOCK_STREAM
    if made >= 0:
        os.close(made)
        return "made"
    return errno.errorcode.get(ctypes.get_errno(), "an error")
