"""How many workers fit into a machine, or into the part of it that a container may use."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgemod
from edgemod import crew, machine, pipeline, store, worker
from edgemod.errors import InputError

GB = 10**9
NONE: dict[str, Any] = {}
HUGE = 9223372036854771712  # what version 1 says where there is no limit


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    sizes = {"SC_PHYS_PAGES": 64 * GB // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)


def fake(root: Path, groups: str, mounts: str, files: dict[str, Any]) -> Path:
    """A root folder with /proc and /sys files as a kernel writes them."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    (root / "proc/self/mountinfo").write_text(mounts)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def v2(root: Path, path: str = "/", shown: str = "/", files: dict[str, Any] = NONE) -> Path:
    mount = f"31 23 0:27 {shown} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
    noise = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n24 22 0:5 / /none rw - tmpfs  rw\n"
    return fake(root, f"0::{path}\n", noise + mount, files)


def v1(root: Path, path: str = "/", shown: str = "/", files: dict[str, Any] = NONE) -> Path:
    lines = [("cpu,cpuacct", "cpu,cpuacct"), ("memory", "memory"), ("pids", "pids")]
    groups = "".join(f"{k}:{names}:{path}\n" for k, (_, names) in enumerate(lines, 2))
    mounts = "".join(
        f"3{k} 31 0:3{k} {shown} /sys/fs/cgroup/{folder} rw - cgroup cgroup rw,{names}\n"
        for k, (folder, names) in enumerate(lines)
    )
    return fake(root, f"{groups}1:name=systemd:{path}\n0::{path}\n", mounts, files)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("6400000 100000", 8),
        ("300000", 3),
        ("300000 0", 8),
        ("", 8),
        ("nonsense", 8),
    ],
)
def test_quota_of_version_2(tmp_path: Path, quota: str, cores: int) -> None:
    assert machine.usable_cores(v2(tmp_path, files={"cpu.max": quota})) == cores


@pytest.mark.parametrize(
    ("quota", "period", "cores"), [(-1, 100000, 8), (400000, 100000, 4), (25000, 10000, 3)]
)
def test_quota_of_version_1(tmp_path: Path, quota: int, period: int, cores: int) -> None:
    files = {"cpu,cpuacct/cpu.cfs_quota_us": quota, "cpu,cpuacct/cpu.cfs_period_us": period}
    assert machine.usable_cores(v1(tmp_path, files=files)) == cores


def test_the_smallest_limit_above_a_group_holds(tmp_path: Path) -> None:
    files = {
        "slurm/cpu.max": "300000 100000",
        "slurm/job/cpu.max": "max 100000",
        "slurm/job/step/cpu.max": "500000 100000",
        "other/cpu.max": "100000 100000",
        "slurm/memory.max": "max",
        "slurm/job/memory.max": 3 * GB,
        "slurm/job/step/memory.max": 9 * GB,
    }
    root = v2(tmp_path, path="/slurm/job/step", files=files)
    assert (machine.usable_cores(root), machine.memory_limit(root)) == (3, 3 * GB)


@pytest.mark.parametrize("make", [v1, v2])
@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/", "/"),  # a namespace of its own
        ("/docker/abc", "/docker/abc"),  # a mount of the container's part
        ("/docker/abc", "/"),  # the names of the machine, files of which are not shown
        ("/../../job", "/"),  # moved out of its namespace
    ],
)
def test_a_container_sees_its_limits(
    tmp_path: Path, make: Callable[..., Path], path: str, shown: str
) -> None:
    files: dict[str, Any] = {
        "memory/memory.limit_in_bytes": 2 * GB,
        "cpu,cpuacct/cpu.cfs_quota_us": 200000,
        "cpu,cpuacct/cpu.cfs_period_us": 100000,
    }
    if make is v2:
        files = {"memory.max": 2 * GB, "cpu.max": "200000 100000"}
    root = make(tmp_path, path, shown, files)
    assert (machine.usable_cores(root), machine.memory_limit(root)) == (2, 2 * GB)


def test_no_limit_is_the_memory_there_is(tmp_path: Path) -> None:
    all_there_is = 64 * GB // 4096 * 4096
    assert machine.memory_limit(tmp_path / "no proc") == all_there_is
    assert machine.usable_cores(tmp_path / "no proc") == 8
    root = v1(tmp_path / "1", files={"memory/memory.limit_in_bytes": HUGE})
    assert machine.memory_limit(root) == all_there_is
    assert machine.memory_limit(v2(tmp_path / "2", files={"memory.max": "max"})) == all_there_is


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4GB", 4 * GB), ("4G", 4 * GB), ("1.5gb", 1_500_000_000), ("800MB", 800_000_000),
        ("2GiB", 2 << 30), ("512 MiB", 512 << 20), ("1TB", 1000 * GB), ("700k", 700_000),
        ("123", 123), ("123B", 123), (" 4GB ", 4 * GB),
    ],
)  # fmt: skip
def test_sizes(text: str, expected: int) -> None:
    assert machine.size(text) == expected


@pytest.mark.parametrize("text", ["", "4X", "GB", "-4GB", "4GBB", "4iB", "1e9", "4 5GB", "inf"])
def test_what_is_no_size_is_told(text: str) -> None:
    with pytest.raises(InputError, match="is not a size"):
        machine.size(text)


@given(
    asked=st.integers(1, 512),
    limit=st.integers(0, 300 * GB),
    model=st.sampled_from([None, "default"]),
)
def test_the_most_workers_that_fit(asked: int, limit: int, model: str | None) -> None:
    each = machine.model_bytes(model)
    if limit < machine.expected_bytes(1, each):
        with pytest.raises(InputError, match="is too little: a run with one worker"):
            machine.workers(asked, limit, model)
        return
    count = machine.workers(asked, limit, model)
    assert 1 <= count <= asked
    assert machine.expected_bytes(count, each) <= limit
    assert count == asked or machine.expected_bytes(count + 1, each) > limit


def test_the_default_honours_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.workers(None, None, "default") == 8
    need = machine.expected_bytes(3, machine.model_bytes("default"))
    monkeypatch.setattr(machine, "memory_limit", lambda: need)
    assert machine.workers(None, None, "default") == 3
    assert machine.workers(5, None, "default") == 5  # who says a number gets it
    monkeypatch.setattr(machine, "memory_limit", lambda: GB // 10)
    assert machine.workers(None, None, "default") == 1


def test_the_size_of_a_model_counts(tmp_path: Path) -> None:
    (entry,) = (e for e in store.list_models() if e.name == "default")
    shipped = sum(path.stat().st_size for path, _ in entry.files)
    assert machine.model_bytes("default") == shipped > 20 * 10**6
    assert machine.model_bytes(None) == machine.model_bytes("unheard of") == 0
    (tmp_path / "guard.gguf").write_bytes(b"x" * 1000)
    assert machine.model_bytes(str(tmp_path / "guard.gguf")) == 1000
    assert machine.expected_bytes(2, 1000) - machine.expected_bytes(2, 0) == 4000


def test_a_run_gets_the_workers_that_fit(
    dump: Path, tmp_path: Path, one_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = machine.expected_bytes(2, 0)
    options: dict[str, Any] = {"model": None, "workers": 6}
    report = edgemod.triage(dump, tmp_path / "out", max_memory=need, **options)
    assert report.workers == 2
    # It is no part of what a run is: another number continues it.
    assert edgemod.triage(dump, tmp_path / "out", max_memory="90GB", **options) == report
    with pytest.raises(InputError, match=r"0\.30 GB is too little") as caught:
        edgemod.triage(dump, tmp_path / "small", max_memory="300MB", **options)
    assert "--model none" in str(caught.value)
    assert not (tmp_path / "small").exists()
    with pytest.raises(InputError, match="workers is 0"):
        edgemod.triage(dump, tmp_path / "small", model=None, workers=0)


def test_a_worker_takes_about_what_is_expected(
    dump: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice as much where it compiles the kernels, which the first worker ever does alone."""
    monkeypatch.setattr(pipeline, "Crew", crew.Crew)
    report = edgemod.triage(dump, tmp_path / "out", model=None, workers=1)
    taken = report.peak_memory_bytes - worker.peak_bytes()  # without this process, the parent
    assert machine.WORKER_BYTES / 2 < taken < 2 * machine.WORKER_BYTES


def test_dry_run_tells_the_workers(
    dump: Path, tmp_path: Path, one_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from edgemod.cli import cli

    need = machine.expected_bytes(3, 0)
    arguments = ["triage", str(dump), "-o", str(tmp_path / "out"), "--model", "none"]
    told = CliRunner().invoke(cli, [*arguments, "--max-memory", str(need), "--dry-run"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["workers"] == 3
