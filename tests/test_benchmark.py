"""The benchmark measures what it says, on the sample it says, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemod import benchmark, records, stage_times, store
from edgemod.encoder import Encoder
from edgemod.errors import InputError
from edgemod.figures import Benchmark, compare
from edgemod.pipeline import Progress
from edgemod.triager import Triager
from samples import sentences, write_dump

STAGES = {"reading", "filter", "deciding", "model", "writing", "whole"}
LONG = "nobody wants you here, get lost. The recipe says two cups of flour, but three work. " * 12


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    file = write_dump(tmp_path_factory.mktemp("bench") / "dump.parquet", 200)
    return benchmark.bench(file, sample=120, workers=(1,), repeats=1)


def figure(found: Benchmark, stage: str, step: str, unit: str) -> float:
    (value,) = {f.value for f in found.figures if (f.stage, f.step, f.unit) == (stage, step, unit)}
    return value


def test_every_stage_is_measured_once(measured: Benchmark) -> None:
    keys = [figure.key for figure in measured.figures]
    assert len(set(keys)) == len(keys)
    assert {figure.stage for figure in measured.figures} == STAGES
    steps = {figure.step for figure in measured.figures if figure.stage == "filter"}
    assert steps == {"", "normalise", "features", "lexicons", "n-grams", "language"}
    assert all(figure.value > 0 and figure.count > 0 for figure in measured.figures)
    assert measured.workers == 1
    assert measured.sample["records"] == 120
    assert measured.sample["texts"] == 120


def test_figures_of_one_step_are_of_one_time(measured: Benchmark) -> None:
    sample = measured.sample
    of_file = figure(measured, "reading", "", "bytes/s of the file")
    of_records = figure(measured, "reading", "", "records/s")
    assert of_file / of_records == pytest.approx(sample["file_bytes"] / sample["records"])
    latencies = [f.value for f in measured.figures if f.step == "a text that needs the model"]
    assert latencies == sorted(latencies)
    settled = figure(measured, "whole", "settled without a person", "share of records")
    assert figure(measured, "whole", "settled by the filter", "share of records") <= settled <= 1


def test_the_json_comes_back_and_holds_no_text(measured: Benchmark, tmp_path: Path) -> None:
    told = json.dumps(measured.to_json())
    (tmp_path / "bench.json").write_text(told)
    assert Benchmark.load(tmp_path / "bench.json") == measured
    words = {word for text in sentences(120) for word in text.lower().split() if len(word) > 5}
    assert not words & set(told.lower().replace('"', " ").split())


def test_comparing_tells_ratios_and_what_differs(measured: Benchmark) -> None:
    ratios, differences = compare(measured, measured)
    assert {one.ratio for one in ratios} == {1.0}
    assert {one.verdict for one in ratios} == {""}
    assert differences == []
    twice = tuple(dataclasses.replace(f, value=2 * f.value) for f in measured.figures)
    other = dataclasses.replace(
        measured, figures=twice, machine={**measured.machine, "cores": 99}, edgemod="0"
    )
    ratios, differences = compare(other, measured)
    assert {one.ratio for one in ratios} == {2.0}
    for one in ratios:
        dear = one.figure.unit in {"milliseconds", "bytes at peak"}
        assert one.verdict == ("worse" if dear else "better")
    assert len(differences) == 2
    assert "cores" in differences[0]


@pytest.mark.parametrize("content", ["", "[]", '{"format": 7}', '{"format": 1, "figures": []}'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(InputError, match="not a benchmark"):
        Benchmark.load(tmp_path / "other.json")
    with pytest.raises(InputError, match="cannot be read"):
        Benchmark.load(tmp_path / "none.json")


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl", "conversations", "folder"])
@pytest.mark.parametrize("draw", ["first", "spread"])
def test_the_sample_is_of_these_records(tmp_path: Path, form: str, draw: benchmark.Draw) -> None:
    texts = [f'number {i},\n"quoted" \u2013 {i}' for i in range(50)]
    table = pa.table({"other": range(50), "id": [f"r{i}" for i in range(50)], "text": texts})
    source = tmp_path / "in"
    source.mkdir()
    if form == "csv":
        pa_csv.write_csv(table, source / "a.csv")
    elif form == "jsonl":
        (source / "a.jsonl").write_text("\n".join(map(json.dumps, table.to_pylist())))
    elif form == "conversations":
        talks = pa.array([[{"role": "user", "content": text}] for text in texts])
        pq.write_table(pa.table({"messages": talks}), source / "a.parquet")
    elif form == "folder":
        pq.write_table(table.slice(0, 20), source / "a.parquet", row_group_size=7)
        pq.write_table(table.slice(20), source / "b.parquet")
    else:
        pq.write_table(table, source / "a.parquet", row_group_size=7)
    found = records.discover([source])
    columns = records.resolve_columns(found)
    (tmp_path / "sample").mkdir()
    file, names, count = benchmark._draw(found, columns, 8, draw, tmp_path / "sample")
    assert count == 8
    assert "other" not in names
    again = records.discover([file])
    (chunk,) = records.read_chunks(again, records.resolve_columns(again), max_text_bytes=10_000)
    expected = range(8) if draw == "first" else np.linspace(0, 49, 8).astype(int)
    assert chunk.texts["text"].to_pylist() == [texts[i] for i in expected]


def test_nothing_to_measure_is_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "none.parquet")
    with pytest.raises(InputError, match="no record"):
        benchmark.bench(tmp_path / "none.parquet", workers=(1,))
    with pytest.raises(InputError, match="below 1"):
        benchmark.bench(tmp_path / "none.parquet", sample=0)


def test_watching_an_encoder_changes_no_score() -> None:
    texts = pa.array(["see you at eight", LONG, "see you at eight"], pa.large_string())
    with Triager() as triager:
        watched = stage_times._Watched.open(store.resolve("default"))
        plain, cleared = triager.model, triager.cleared
        assert isinstance(plain, Encoder)
        expected, answer = plain.score(texts, None, cleared), watched.score(texts, None, cleared)
        np.testing.assert_array_equal(answer.scores, expected.scores)
        np.testing.assert_array_equal(answer.tokens, expected.tokens)
        assert len(watched.text_seconds) == 3
        # The third text's window was read already.
        assert len(watched.window_seconds) == answer.windows[:2].sum() > 2
        watched.forget()
        watched.score(texts[:1])
        assert len(watched.window_seconds) == answer.windows[:2].sum() + 1
        watched.close()


@given(st.integers(1, 8), st.integers(0, 200), st.floats(0.01, 10), st.integers(1, 500))
def test_a_steady_run_has_its_rate(workers: int, chunks: int, seconds: float, rows: int) -> None:
    # A chunk each ``seconds``; the workers come one after another, each a chunk later.
    events = [
        Progress(i, (i + 1) * rows, None, 0, 0, (i + 1) * seconds, min(i + 1, workers))
        for i in range(chunks)
    ]
    rate = benchmark.steady(events, workers)
    if chunks >= 3 * workers:
        assert rate is not None
        assert rate == pytest.approx(rows / seconds)
    if chunks < 2 * workers:
        assert rate is None


def test_a_worker_that_came_late_is_waited_for() -> None:
    # One worker does a record a second; from 10 s on there are two.
    alone = [Progress(i, i + 1, None, 0, 0, float(i + 1), 1) for i in range(10)]
    both = [Progress(i, i + 1, None, 0, 0, 10 + (i - 9) / 2, 2) for i in range(10, 30)]
    assert benchmark.steady(alone + both, 2) == pytest.approx(2)
    assert benchmark.steady(alone, 2) is None


@given(
    st.dictionaries(
        st.integers(1, 64), st.tuples(st.floats(1, 1e6), st.integers(1, 10**11)), min_size=1
    ),
    st.integers(10**9, 10**12),
)
def test_the_advice_is_small_fast_and_fits(
    found: dict[int, tuple[float, int]], memory: int
) -> None:
    rates = {n: rate for n, (rate, _) in found.items()}
    peaks = {n: peak for n, (_, peak) in found.items()}
    n, why = benchmark._advise(rates, peaks, memory)
    fits = [m for m in found if peaks[m] <= benchmark.MEMORY_SHARE * memory]
    assert why
    if not fits:
        assert n == min(found)
        return
    assert n in fits
    assert rates[n] >= 0.95 * max(rates[m] for m in fits)
    assert all(rates[m] < 0.95 * max(rates[k] for k in fits) for m in fits if m < n)


def test_the_numbers_of_workers_reach_every_core() -> None:
    assert benchmark.worker_counts(1) == (1,)
    assert benchmark.worker_counts(2) == (1, 2)
    assert benchmark.worker_counts(10) == (1, 2, 3, 4, 6, 8, 10)
    assert benchmark.worker_counts(64)[-4:] == (24, 32, 48, 64)


def test_energy_is_read_from_the_packages_alone(tmp_path: Path) -> None:
    assert benchmark.read_energy(tmp_path) == (
        {},
        "not readable: this machine shows no RAPL counters",
    )
    for zone, micro in (("intel-rapl:0", 900), ("intel-rapl:1", 10), ("intel-rapl:0:0", 5)):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "energy_uj").write_text(f"{micro}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("1000\n")
    before, why = benchmark.read_energy(tmp_path)
    assert why == ""
    assert set(before) == {"intel-rapl:0", "intel-rapl:1"}
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100\n")  # wrapped
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("60\n")
    after, _ = benchmark.read_energy(tmp_path)
    assert benchmark.used(before, after) == pytest.approx(250e-6)
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    found, why = benchmark.read_energy(tmp_path)
    assert found == {}
    assert why.startswith("not readable: ")


def command(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edgemod", "bench", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
        cwd=Path(__file__).parents[1],
        # A shell that starts tests in the background has interrupts ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_the_command_measures_and_compares(dump: Path, measured: Benchmark, tmp_path: Path) -> None:
    folder, old, out = tmp_path / "tmp", tmp_path / "old.json", tmp_path / "bench.json"
    folder.mkdir()
    old.write_text(json.dumps(measured.to_json()))
    few = ("--model", "none", "--records", 50, "--workers", 1, "--repeats", 1)
    told = command(folder, dump, *few, "-o", out, "--against", old)
    printed, errors = told.communicate()
    assert told.returncode == 0, errors
    found = Benchmark.load(out)
    assert {figure.stage for figure in found.figures} == STAGES - {"model"}
    assert found.fingerprints["model"] == "none"
    assert "--workers 1" in printed
    assert "not the same: options: records was 120 and is 50" in printed
    assert [*folder.iterdir()] == []


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_sample(dump: Path, tmp_path: Path, sign: signal.Signals) -> None:
    told = command(tmp_path, dump)
    while told.poll() is None and not [*tmp_path.glob("edgemod-bench-*/out/run.json")]:
        time.sleep(0.02)
    assert told.poll() is None
    told.send_signal(sign)
    told.communicate()
    assert told.returncode == 128 + sign
    assert [*tmp_path.iterdir()] == []
