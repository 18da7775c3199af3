"""Processes of edgemod's own cannot reach a network; programs that call the library still can."""

from __future__ import annotations

import json
import platform
import re
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from edgemod import exits, offline
from edgemod.__main__ import asks_for_ray, main
from edgemod.cli import cli
from samples import write_dump

ROOT = Path(__file__).parents[1]
LINUX = sys.platform.startswith("linux") and platform.machine() in offline._CALLS
kernel = pytest.mark.skipif(not LINUX, reason="there is no filter for this kernel")


def child(code: str) -> str:
    """What a guarded process of its own prints."""
    whole = f"import ctypes, errno, os, socket, threading\nfrom edgemod import offline\n{code}"
    told = subprocess.run(
        [sys.executable, "-c", whole], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert told.returncode == 0, told.stderr
    return told.stdout.strip()


@kernel
def test_native_code_is_refused_every_family_but_one() -> None:
    told = child("""
print(offline.answer(), offline.guard(), offline.answer())
libc = ctypes.CDLL(None, use_errno=True)
for call in (libc.socket, lambda *a: libc.socketpair(*a, (ctypes.c_int * 2)())):
    allowed = []
    for family in range(64):
        ctypes.set_errno(0)
        if call(family, 1, 0) >= 0 or ctypes.get_errno() != errno.EACCES:
            allowed.append(family)
    print(allowed)
""")
    assert told.splitlines() == ["made seccomp EACCES", "[1]", "[1]"]


@kernel
def test_ways_round_are_refused() -> None:
    """io_uring, sockets of other processes, and (x86-64) the second set of calls."""
    never = offline._CALLS[platform.machine()][3]
    told = child(f"""
offline.guard()
libc = ctypes.CDLL(None, use_errno=True)
for number in {(*never, offline._X32 + 41, offline._X32 + 512)}:
    assert libc.syscall(ctypes.c_long(number), 0, 0, 0) == -1
    print(ctypes.get_errno() == errno.EACCES)
""")
    assert set(told.split()) == {"True"}


@kernel
def test_threads_and_children_are_held_too() -> None:
    """A thread that ran before the guard came, and a process that another program starts."""
    told = child("""
import subprocess, sys
go, done = threading.Event(), threading.Event()
def late():
    go.wait()
    print(offline.answer(), flush=True)
thread = threading.Thread(target=late)
thread.start()
offline.guard()
go.set()
thread.join()
code = "from edgemod import offline; print(offline.answer())"
subprocess.run([sys.executable, "-c", code], check=True)
""")
    assert told.split() == ["EACCES", "EACCES"]


def test_python_is_told_why_and_unix_sockets_work(tmp_path: Path) -> None:
    told = child(f"""
offline.guard()
one, other = socket.socketpair()
one.send(b"through")
print(other.recv(9).decode())
with socket.socket(socket.AF_UNIX) as server:
    server.bind({str(tmp_path / "s")!r})
for ask in (socket.socket, lambda: socket.getaddrinfo("localhost", 80),
            lambda: socket.create_connection(("127.0.0.1", 9))):
    try:
        ask()
    except PermissionError as error:
        print(error.strerror)
""")
    assert told.splitlines() == ["through", *["edgemod keeps this process off the network"] * 3]


def test_the_audit_hook_alone_refuses_python(monkeypatch: pytest.MonkeyPatch) -> None:
    told = child("""
offline._seccomp = lambda: False
print(offline.guard(), offline.answer())
try:
    socket.socket(socket.AF_INET6)
except PermissionError as error:
    print(error.strerror)
print(offline.attestation({"audit hook": 3, "seccomp": 4})["guard"])
""")
    assert told.splitlines() == [
        "audit hook made",  # native code is not held by it, and that is what the report says
        "edgemod keeps this process off the network",
        "audit hook",
    ]


def test_the_weakest_guard_is_attested() -> None:
    assert offline.attestation({"seccomp": 7})["guard"] == "seccomp"
    assert offline.attestation({"seccomp": 7, "magic": 1})["guard"] == "none"
    assert offline.attestation({})["guard"] == "none"
    mixed = offline.attestation({"seccomp": 7, "none": 1})
    assert mixed["guard"] == "none"
    assert "Ray cluster" in mixed["meaning"]
    assert offline.attestation({"seccomp": 7})["parent"] == "none"


def test_the_filter_is_what_it_says() -> None:
    """Interpreted step by step, as the kernel does, for both machines."""
    for machine in offline._CALLS.values():
        arch, _, sockets, never = machine
        code = offline.program(machine)

        def run(number: int, first: int, of: int, code: bytes = code) -> bool:
            data, value, at = {0: number, 4: of, 16: first & 0xFFFFFFFF}, 0, 0
            while True:
                op, true, false, k = struct.unpack_from("=HBBI", code, 8 * at)
                at += 1
                if op == 0x20:
                    value = data[k]
                elif op == 0x06:
                    return bool(k == offline._ALLOW)
                else:
                    at += true if (value == k if op == 0x15 else value >= k) else false

        for number in range(600):
            for first in (0, 1, 2, 10, 16, 0x1_0000_0001 & 0xFFFFFFFF):
                wanted = number not in never and (number not in sockets or first == 1)
                assert run(number, first, arch) == wanted, (number, first)
                assert not run(number, first, arch ^ 1)
                assert not run(number + offline._X32, first, arch)


@pytest.mark.parametrize(
    ("arguments", "asks"),
    [
        ("triage in -o out --engine ray", True),
        ("triage --engine=ray --keep-scores -o out in --ray-address a:1", True),
        ("triage in -o out --engine local --engine ray", True),
        ("triage in -o out --engine ray --engine local", False),
        ("triage in -o out", False),
        ("triage in -o --engine ray", False),
        ("triage -o out -- --engine ray", False),
        ("triage in -o out --text-column --engine ray", False),
        ("triage in -o out --engine rays", False),
        ("triage in -o out --ray-address ray", False),
        ("triages in -o out --engine ray", False),
        ("score --engine ray", False),
        ("merge triage --engine ray", False),
        ("--engine ray triage in -o out", False),
        ("doctor", False),
        ("", False),
    ],
)
def test_only_triage_with_the_engine_ray_is_not_held(
    arguments: str, asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(sys, "argv", ["edgemod", *arguments.split()])
    monkeypatch.setattr(offline, "guard", lambda: ran.append("guard"))
    monkeypatch.setattr(exits, "run", lambda _: ran.append("command"))
    main()
    assert ran == ([] if asks else ["guard"]) + ["command"]


@pytest.mark.parametrize("command", sorted({*cli.commands} - {"triage"}))
def test_every_other_command_is_held(command: str) -> None:
    assert not asks_for_ray([command, "--engine", "ray"])


# -- whole runs --------------------------------------------------------------------------------


def triage(out: Path, dump: Path, *before: str) -> dict[str, bytes]:
    """The decisions and review files of a run behind another command."""
    told = subprocess.run(
        [*before, sys.executable, "-m", "edgemod", "triage", dump, "-o", out,
         "--chunk-rows", "32", "--workers", "2"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    if LINUX:
        assert "the kernel kept every worker off the network" in told.stderr
        said = json.loads((out / "report.json").read_text())["offline"]
        assert (said["guard"], said["parent"]) == ("seccomp", "seccomp")
        assert said["records"] == {"seccomp": 64}
    files = [*(out / "decisions").iterdir(), *(out / "review").iterdir()]
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], Path, str]:
    """A run under strace where there is one: its files, its input, the calls of the network."""
    folder = tmp_path_factory.mktemp("traced")
    dump, calls = write_dump(folder / "dump.parquet", 64), folder / "calls"
    watch = "strace -f --seccomp-bpf -e trace=%network,seccomp,execve -o"
    before = [*watch.split(), str(calls)]
    found = shutil.which("strace")
    made = triage(folder / "out", dump, *(before if found else []))
    return made, dump, calls.read_text() if found else ""


def test_no_socket_is_asked_for(traced: tuple[dict[str, bytes], Path, str]) -> None:
    calls = traced[2]
    if not calls:
        pytest.skip("strace is not installed")
    assert calls.count("edgemod.worker") >= 2  # the workers were watched
    if LINUX:
        assert calls.count("SECCOMP_SET_MODE_FILTER") >= 3
    asked = re.findall(r"\b(?:socket|socketpair)\((?!AF_UNIX)\w+", calls)
    reached = re.findall(r"\b(?:connect|bind|sendto|sendmsg|sendmmsg|listen)\(", calls)
    assert (asked, reached) == ([], [])


def test_without_a_network_the_decisions_are_the_same(
    traced: tuple[dict[str, bytes], Path, str], tmp_path: Path
) -> None:
    alone = ["unshare", "--map-root-user", "--net"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("network namespaces are not permitted here")
    assert triage(tmp_path / "out", traced[1], *alone) == traced[0]


def test_a_program_that_calls_the_library_keeps_its_network(tmp_path: Path) -> None:
    import edgemod

    dump = write_dump(tmp_path / "dump.parquet", 8)
    report = edgemod.triage(dump, tmp_path / "out", model=None, workers=1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname()[1]
    assert report.offline["parent"] == "none"
    assert report.offline["guard"] == ("seccomp" if LINUX else "audit hook")
