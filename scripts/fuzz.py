"""Fuzz whatever reads what others wrote: files of records, policies, calibrations, labels, runs.

    python scripts/fuzz.py TARGET [--minutes 3] [--found FOLDER] [--corpus FOLDER]
    python scripts/fuzz.py shapes [--found FOLDER]

Each target says which errors an input may raise, and checks what must hold where it raises none.
Inputs that do anything else are written to FOLDER, one for each place; an input that ends or stalls
the process is left there by libFuzzer. What reached new code is kept in the folder of ``--corpus``,
so that the next turn begins where this one ends. ``shapes`` tries what mutation does not come
upon: very long, very wide, very deep, all of Unicode, and each value of a JSON document gone wrong.

With atheris the search is guided by coverage; without it inputs are mutated blindly. It is no
dependency of edgemod: ``pip install atheris``. Takes the minutes it is given, shapes about five.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import io
import itertools
import json
import math
import random
import shutil
import sqlite3
import sys
import tempfile
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

try:
    import atheris
except ImportError:
    atheris = None

GUIDED: Final = atheris is not None and __name__ == "__main__" and "shapes" not in sys.argv

# numba compiles bytecode as Python made it.
_COMPILED: Final = [
    "edgemod.language",
    *(f"edgemod.kernels.{file.stem}" for file in (ROOT / "edgemod" / "kernels").glob("*.py")),
]

with (
    atheris.instrument_imports(include=["edgemod"], exclude=_COMPILED)
    if GUIDED
    else contextlib.nullcontext()
):
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    import edgemod
    import naive
    from edgemod import (
        audit,
        encoder,
        errors,
        features,
        labels,
        merging,
        privacy,
        records,
        run_folder,
        store,
        tally,
        verifying,
        worker,
    )
    from edgemod.calibration import Calibration
    from edgemod.errors import (
        CalibrationError,
        InputError,
        OutputError,
        PolicyError,
        RunError,
    )
    from edgemod.kernels import normalise, pii, scan
    from edgemod.policy import DEFAULT_POLICY, load_policy
    from edgemod.reviewing import answer_files, answers, labelling, queue
    from edgemod.screen import run as screen
    from edgemod.triager import Triager
    from edgemod.words import FEATURES, OUTPUTS
    from samples import sentences

SECONDS: Final = 10.0
"""Of processor time that one input may take, where its target says nothing else."""

_TEXT_BYTES: Final = 1000
_TWIN_CHARACTERS: Final = 400  # of a text that goes through the slow twins
_CHUNKS: Final = 200  # read of one input: a footer may claim any number of rows


class Target(NamedTuple):
    """What reads the bytes, what to begin with, and what may be raised."""

    check: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    raises: tuple[type[Exception], ...]
    seconds: float = SECONDS


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="edgemod-fuzz-")
    _KEPT.append(folder)
    return Path(folder.name)


_KEPT: Final[list[Any]] = []  # until this process ends


def _written(name: str, data: bytes) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


# -- records -----------------------------------------------------------------------------------


def _read(suffix: str) -> Callable[[bytes], None]:
    """Every row once and in order, and the same wherever reading starts."""

    def check(data: bytes) -> None:
        (source,) = records.discover([_written(f"input.{suffix}", data)])
        columns = records.resolve_columns([source])
        options: Any = {"chunk_rows": 64, "chunk_bytes": 1 << 14, "max_text_bytes": _TEXT_BYTES}
        found = [*itertools.islice(records.read_chunks([source], columns, **options), _CHUNKS)]
        row = 0
        for chunk in found:
            chunk.records.validate(full=True)
            chunk.texts.validate(full=True)
            of = chunk.texts["record"].to_numpy()
            assert chunk.records["source_row"].to_pylist() == [
                *range(row, row + chunk.records.num_rows)
            ]
            assert {*of.tolist()} == {*range(chunk.records.num_rows)}
            assert (np.diff(of) >= 0).all()
            assert max(map(len, _bytes(chunk.texts["text"])), default=0) <= _TEXT_BYTES
            row += chunk.records.num_rows
        if len(found) < _CHUNKS:
            assert row == records.count_rows([source], columns)
        half = len(found) // 2
        if half:
            before = sum(chunk.records.num_rows for chunk in found[:half])
            again = records.read_chunks([source], columns, start=half, start_row=before, **options)
            for chunk, other in zip(found[half:], again, strict=False):
                assert chunk.records.equals(other.records)
                assert chunk.texts.equals(other.texts)

    return check


def _bytes(column: pa.Array) -> list[bytes]:
    return [value or b"" for value in column.cast(pa.large_binary()).to_pylist()]


def _parquet(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return bytes(sink.getvalue())


def _parquets() -> list[bytes]:
    texts = sentences(40)
    flat = pa.table({"id": range(40), "body": texts, "created_utc": [1.7e9] * 40})
    talk = pa.table(
        {
            "messages": [
                [{"role": "user", "content": t}, {"role": None, "content": None}] for t in texts
            ]
        }
    )
    coded = pa.table({"text": pa.array(texts).dictionary_encode(), "user": pa.array(texts)})
    raw = pa.table({"text": pa.array([t.encode() for t in texts], pa.binary())})
    return [
        _parquet(flat, row_group_size=16, compression="none", use_dictionary=False),
        _parquet(flat, row_group_size=7, compression="zstd", write_page_checksum=True),
        _parquet(talk, compression="snappy"),
        _parquet(coded, compression="gzip", data_page_version="2.0"),
        _parquet(raw, compression="none", store_schema=False),
        _parquet(flat.slice(0, 0)),
    ]


def _csvs() -> list[bytes]:
    return [
        b'id,text\n1,one\n2,"two\n lines"\n3,"a ""b"""\n\n4,x,y\n5\n',
        b'\xef\xbb\xbfid,text,author\r\n1,"one, two",bob\r\n2,"torn" quote,al\r\n3,\xff,\r\n',
        b"text\n" + "\n".join(sentences(20)).encode() + b"\n",
        b"id,body,created_utc\n" + b"1,x,1700000000\n2,y\n" * 9,
    ]


def _jsonls() -> list[bytes]:
    talk = b'[{"role": "user", "content": "a"}, {"from": "x", "value": ["b", {"text": 1}]}]'
    lines = [b'{"id": %d, "text": "%b"}\n' % (i, t.encode()) for i, t in enumerate(sentences(9))]
    return [
        b'{"id": 1, "text": "one"}\n{"id": "b", "text": null}\n{"text": 3}\n[]\n'
        b'{"text": "\\ud800"}\n',
        b'{"messages": '
        + talk
        + b'}\n{"messages": null}\n{"messages": [null, "c", {"tool_calls": []}]}\n',
        b'{"body": "\\u00e9\xc3\xa9\xff", "a": {"b": [1, 2.5, true]}}\n\n'
        b'{"body": "x", "body": "y"}\n{"bo',
        b"".join(lines),
    ]


# -- texts -------------------------------------------------------------------------------------


def _texts(data: bytes) -> list[str]:
    return data.decode("utf-8", "ignore").split("\x1e")[:8]


def _seeds_of_texts() -> list[bytes]:
    odd = [
        "h4te $hit s o o n soooo \u0430\u0435 e\u0301 \U0001f44d\U0001f3fd "
        "\U0001f1fa\U0001f1f8 &amp;lt;",
        "a@b.co http://x.yz/p?e=a@b.co 4111 1111 1111 1111 +1 (555) 010-9999 "
        "DE89370400440532013000",
        "::1 127.0.0.1 fe80::1%en0 078-05-1120 AB123456C www.A.org/4111111111111111",
        "> quoted\n#tag \u201cb\u201d \u200b\u200d\ufe0f \u6f22\u5b57 \u0645\u0631\u062d",
    ]
    return ["\x1e".join(part).encode() for part in (odd, odd[:1], odd[1:2], sentences(8))]


@functools.cache
def _lexicons() -> features.Lexicons:
    return features.Lexicons.compile(load_policy().lexicons)


def _kernels(data: bytes) -> None:
    """Finite numbers, the same for a text alone as among others, and as the slow twins find."""
    texts = _texts(data)
    column = pa.array(texts, pa.large_string())
    found = features.extract(column, _lexicons())
    assert np.isfinite(found.values).all()
    assert (found.values >= 0).all()
    assert (found.hits >= 0).all()
    bytes_, offsets = found.normalised
    scanned = scan.scan(*features.buffers(column))
    for k, text in enumerate(texts):
        alone = features.extract(column.slice(k, 1), _lexicons())
        np.testing.assert_array_equal(alone.values[0], found.values[k])
        np.testing.assert_array_equal(alone.hits[0], found.hits[k])
        form = bytes_[offsets[k] : offsets[k + 1]].tobytes()
        assert len(form) <= len(text.encode())
        assert alone.normalised[0].tobytes() == form
        if len(text) <= _TWIN_CHARACTERS:
            assert form.decode() == naive.normalise(text)[0]
            np.testing.assert_allclose(
                scanned[k], [*naive.scan(text).values()], rtol=1e-6, atol=1e-6
            )
            once, _ = normalise.normalise(*features.buffers(column.slice(k, 1)), keep=1)
            assert once[0].tobytes().decode() == naive.normalise(text, 1)[0]
        known = {*FEATURES, *_lexicons().groups}
        for span in features.spans(text, _lexicons()):
            assert 0 <= span.start < span.end <= len(text)
            assert span.what in known
    nulls = pa.nulls(len(texts), pa.large_string())
    rows = pa.table({"status": ["ok"] * len(texts), "text": column, "context": nulls})
    redacted = privacy.redact(rows)["text"].combine_chunks()
    counts = pii.contacts(*features.buffers(redacted))
    assert not counts[:, : len(pii.COLUMNS)][
        :, [c in privacy.PLACEHOLDERS for c in pii.COLUMNS]
    ].any()


@functools.cache
def _encoder() -> encoder.Encoder:
    return encoder.Encoder.open(store.resolve("default"))


@functools.cache
def _triager() -> Triager:
    return Triager()


def _encoded(data: bytes) -> None:
    """Every byte of a form is in a piece, every token in a window, every score is a number."""
    texts = _texts(data)
    column = pa.array(texts, pa.large_string())
    model = _encoder()
    for form in encoder.normal_forms(column):
        end = start = 0
        for piece in encoder.pieces(form):
            start = form.index(piece, max(start, end - len(piece)))
            assert start <= end
            assert len(piece) <= encoder.PIECE
            end = max(end, start + len(piece))
            piece.decode()
            tokens = model._llama.tokenize(piece)
            size, overlap = model.head.window, model.head.overlap
            cut = encoder.windows(tokens, size, overlap)
            whole = [*cut[:1], *(window[overlap:] for window in cut[1:])]
            assert [t for window in whole for t in window] == tokens.tolist()
            assert all(0 < len(window) <= size for window in cut)
        assert end == len(form)
    found = model.score(column)
    assert found.scores.shape == (len(texts), len(OUTPUTS))
    finite = np.isfinite(found.scores)
    assert (finite | np.isnan(found.scores)).all()
    assert (finite.all(axis=1) == (found.windows > 0)).all()
    for row in _triager().triage_batch(pa.record_batch({"text": column})).to_pylist():
        assert row["verdict"] != "clear" or row["status"] == "ok"
        assert row["p_any"] is None or 0 <= row["p_any"] <= 1


# -- settings ----------------------------------------------------------------------------------


def _policy(data: bytes) -> None:
    """A policy without a mistake has terms that can be compiled."""
    policy = load_policy(_written("policy.toml", data))
    features.Lexicons.compile(policy.lexicons)
    assert policy.categories


def _policies() -> list[bytes]:
    beside = DEFAULT_POLICY.parent / "lexicons"
    shutil.copytree(beside, _folder() / "lexicons", dirs_exist_ok=True)
    small = b"""name = "p"
version = "1"
languages = ["en"]
stages = ["rule", "filter"]
[category.hate]
severity = 3
definition = "d"
filter = { clear_below = 0.1, flag_above = inf }
[[lexicon]]
name = "x"
category = "hate"
terms = ["a b", '''c''', "\\u00e9"]
allow = ["a b c"]
[[rule]]
name = "r"
category = "hate"
verdict = "review"
on = "flag"
when = ["links >= 3", "lexicon.x > 0"]
reason = "why"
[[test]]
name = "t"
text = '''a
b'''
verdict = "clear"
why = "w"
[overlay.o]
description = "d"
[overlay.o.category.toxic]
severity = 1
definition = "e"
[[overlay.o.rule]]
name = "s"
category = "toxic"
verdict = "flag"
when = ["caps_share > 0.5"]
reason = "w"
"""
    return [DEFAULT_POLICY.read_bytes(), small, b'a.b."c".d = [{x = [1]}, 1979-05-27]\n']


def _calibration(data: bytes) -> None:
    """What can be loaded gives probabilities, thresholds in order and plain errors."""
    made = Calibration.load(_written("calibration.json", data))
    policy = load_policy()
    scores = np.random.default_rng(0).normal(0, 9, (8, len(OUTPUTS))).astype(np.float32)
    scores[0] = np.nan
    for stage in ("filter", "model", "cascade"):
        p = made.probabilities(stage, scores, scores)
        assert p.shape == scores.shape
        assert ((p >= 0) & (p <= 1))[1:].all()
    for stage in ("filter", "model"):
        made.thresholds(stage, policy)  # type: ignore[arg-type]
    made.unread_below(policy)
    made.for_model("0" * 64)
    for check in (
        functools.partial(made.check_filter, "0" * 64),
        functools.partial(made.check_certificate, "0" * 64, "none"),
    ):
        with contextlib.suppress(CalibrationError):
            check()


def _calibrations() -> list[bytes]:
    shipped = (store.quantized_dir() / "calibration.json").read_bytes()
    document = json.loads(shipped)
    curves = {
        stage: {k: {"kind": "platt", "numbers": [1.0, 0.0]} for k in OUTPUTS}
        for stage in ("filter", "cascade")
    }
    return [shipped, json.dumps({**document, "curves": curves}).encode()]


def _labels(data: bytes) -> None:
    (source,) = records.discover([_written("labels.parquet", data)])
    for column in labels.read_labels(source, None).values():
        assert column.dtype == np.int8
        assert len(column) == source.rows
        assert {*column.tolist()} <= {-1, 0, 1}
    inclusion = labels.read_inclusion(source)
    if inclusion is not None:
        assert 0 < inclusion.floor <= inclusion.chance.min(initial=1)
    for name in ("verdict", "lang"):
        with contextlib.suppress(InputError):
            assert len(labels.read_groups(source, name)) == source.rows


def _labelled() -> list[bytes]:
    table = pa.table(
        {
            "text": sentences(12),
            "hate": pa.array([1, 0, None] * 4, pa.int8()),
            "unsafe": [True, False, None] * 4,
            "inclusion_probability": [0.5, 0.25, 1.0] * 4,
            "inclusion_floor": [0.25] * 12,
            "verdict": ["clear", "flag", "review"] * 4,
            "lang": ["en", "de", None] * 4,
        }
    )
    return [
        _parquet(table, compression="none", use_dictionary=False),
        _parquet(table, row_group_size=5, compression="zstd"),
        _parquet(table.drop_columns(["inclusion_floor"]), compression="none"),
    ]


@functools.cache
def _queue() -> queue.Queue:
    path = _written("asked.parquet", _parquet(pa.table({"id": range(40), "text": sentences(40)})))
    edgemod.triage(path, _folder() / "asked", model=None, workers=1)
    return queue.open_queue(_folder() / "asked")


def _answered(data: bytes) -> None:
    """The first byte says which format. What is read can be kept, and gives labels."""
    kind = answer_files.FORMATS[data[0] % 4 if data else 0]
    asked = _queue()
    known = answer_files.Known.of(
        asked.keys(),
        asked.table["record_id"].to_pylist(),
        [c.name for c in asked.policy.categories],
    )
    found, problems, _ = answer_files.read(_written(f"answers.{kind}", data[1:]), known, "r")
    for problem in problems:
        assert len(problem.what) < 100  # it quotes nothing
    with answers.Answers(sqlite3.connect(":memory:", isolation_level=None), Path()) as kept:
        kept._prepare({})
        assert kept.add(found) == len({one.answer_id for one in found})
        assert kept.add(found) == 0
        table, conflicts, _ = labelling.labels(asked, kept.standing())
        assert table.num_rows <= asked.total
        labelling._conflict_file(conflicts)


def _answer_files() -> list[bytes]:
    kept = [
        {"answer_id": f"a{i}", "record_id": name, "source": source, "source_row": row}
        | {
            "reviewer": "r",
            "answer": said,
            "answer_category": "hate",
            "note": "n",
            "settles": i > 3,
        }
        | {"answered_at": "2026-01-02T03:04:05+00:00", "seconds": 1.5, "revealed": 2}
        | {"inclusion_probability": 0.5, "inclusion_floor": 0.25, "supersedes": "a0"}
        for i, (said, name, (source, row)) in enumerate(
            zip(
                ("clear", "flag", "escalate", "undo", "flag", "clear"),
                _queue().table["record_id"].to_pylist(),
                _queue().keys(),
                strict=False,
            )
        )
    ]
    lines = "\n".join(map(json.dumps, kept))
    cells = "\r\n".join(",".join(f'"{v}"' for v in one.values()) for one in kept)
    tasks = [
        {
            "data": one,
            "annotations": [
                {"id": i, "completed_by": {"id": 7}, "lead_time": 3.5, "updated_at": "2026-01-02"}
                | {"result": [{"from_name": "verdict", "value": {"choices": [one["answer"]]}}]}
            ],
        }
        for i, one in enumerate(kept, 1)
    ]
    return [
        b"\0" + lines.encode(),
        b"\1" + (",".join(kept[0]) + "\r\n" + cells).encode(),
        b"\2" + _parquet(pa.Table.from_pylist(kept), compression="none", use_dictionary=False),
        b"\3" + json.dumps(tasks).encode(),
    ]


# -- runs --------------------------------------------------------------------------------------

_FILES: Final = (
    "run.json",
    "report.json",
    "work/tally-000000.json",
    "decisions/part-000000.parquet",
    "work/review-000000.parquet",
)


@functools.cache
def _run() -> Path:
    """A complete run of one shard, which keeps its tallies."""
    path = _written("dump.parquet", _parquet(pa.table({"text": sentences(40)})))
    edgemod.triage(path, _folder() / "run", model=None, workers=1, shard="1/1")
    return _folder() / "run"


def _damaged(data: bytes) -> None:
    """Bytes in place of one of a run's files, which the first of them names."""
    run = _run()
    name = _FILES[data[0] % len(_FILES)] if data else _FILES[0]
    whole = (run / name).read_bytes()
    merged = _folder() / "merged"
    sample = _folder() / "sample"
    try:
        (run / name).write_bytes(data[1:])
        for attempt in (
            lambda: run_folder.is_complete(run),
            lambda: run_folder.complete_state(run),
            lambda: screen.summary(run_folder.read_report(run), run),
            lambda: [*run_folder.done(run, keep_scores=False)],
            lambda: verifying.verify(run),
            lambda: audit.sample(run, sample, n=5),
            lambda: merging.merge([run], merged),
            lambda: (
                edgemod.triage(_folder() / "dump.parquet", run, model=None, workers=1, shard="1/1")
                if name == "report.json"
                else None
            ),
        ):
            with (
                contextlib.redirect_stderr(io.StringIO()),
                contextlib.suppress(RunError, OutputError, InputError),
            ):
                attempt()
            shutil.rmtree(merged, ignore_errors=True)
            shutil.rmtree(sample, ignore_errors=True)
    finally:
        (run / name).write_bytes(whole)


def _damages() -> list[bytes]:
    return [bytes([k]) + (_run() / name).read_bytes() for k, name in enumerate(_FILES)]


def _received(data: bytes) -> None:
    """A message, or what the parent takes for the end of its worker."""
    header, batches = worker.receive(io.BytesIO(data))
    assert isinstance(header, dict)
    for batch in batches:
        batch.validate()


def _messages() -> list[bytes]:
    found = []
    batch = pa.record_batch({"text": ["a", None], "record": [0, 1]})
    for header, batches in (
        ({"alive": 3}, []),
        ({"chunk": 1, "lost": {}, "keep": True}, [batch, batch]),
        ({"tally": tally.Tally().to_json(), "peak_bytes": 1}, []),
        (errors.to_json(RunError("what", where="where", fix="fix")), []),
    ):
        stream = io.BytesIO()
        worker.send(stream, header, batches)
        found.append(stream.getvalue())
    return found


TARGETS: Final = {
    "parquet": Target(_read("parquet"), _parquets, (InputError,)),
    "csv": Target(_read("csv"), _csvs, (InputError,)),
    "jsonl": Target(_read("jsonl"), _jsonls, (InputError,)),
    "kernels": Target(_kernels, _seeds_of_texts, ()),
    "encoder": Target(_encoded, _seeds_of_texts, ()),
    "policy": Target(_policy, _policies, (PolicyError,), 1.0),
    "calibration": Target(_calibration, _calibrations, (CalibrationError,), 1.0),
    "labels": Target(_labels, _labelled, (InputError,)),
    "answers": Target(_answered, _answer_files, (InputError,)),
    "run": Target(_damaged, _damages, ()),
    "worker": Target(_received, _messages, (EOFError, ValueError, OSError)),
}


# -- shapes ------------------------------------------------------------------------------------

DEEP: Final = 10_000
ODD: Final[tuple[Any, ...]] = (
    None,
    True,
    -1,
    1 << 70,
    1e308,
    float("nan"),
    "",
    "\ud800",
    "x" * 999,
    [],
    [[]],
    {},
    {"": {}},
)


def _with_odd(document: Any) -> Iterator[Any]:
    """The document with each value in it replaced by each odd one, or left out."""
    yield from ODD
    keys: Iterable[Any] = document if isinstance(document, dict) else ()
    keys = range(min(len(document), 2)) if isinstance(document, list) else keys
    for key in keys:
        for value in _with_odd(document[key]):
            changed = document.copy()
            changed[key] = value
            yield changed
        changed = document.copy()
        changed.pop(key)
        yield changed


def _odd_json(data: bytes) -> Iterator[bytes]:
    for document in _with_odd(json.loads(data)):
        yield json.dumps(document).encode()


def _unicode() -> Iterator[bytes]:
    """Every code point, alone in a word and with marks, a few thousand bytes at a time."""
    points = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    marks = [c for c in points if unicodedata.combining(c)][::40]
    for start in range(0, len(points), 1000):
        some = points[start : start + 1000]
        mark = marks[start // 1000 % len(marks)]
        parts = ("".join(some), " ".join(some), "".join(c + mark for c in some), "a".join(some))
        yield "\x1e".join(parts).encode()


Shape = tuple[str, str, bytes]  # target, what it is, bytes


def _long() -> Iterator[Shape]:
    big = 10 << 20
    for data, what in (
        (b"x" * big, "one word"),
        (b"a " * (big // 2), "words of one letter"),
        (b"a@" * (big // 2), "at signs"),
        (b"1-" * (big // 2), "digits and hyphens"),
        (b"1" * big, "digits"),
        (b":" * big, "colons"),
        (b"www." * (big // 4), "links"),
        (b"&amp;" * (big // 5), "entities"),
        (b"\x00" * big, "NULs"),
        (("e" + "\u0301" * (big // 2)).encode(), "marks"),
        (("\U0001f44d\U0001f3fd\u200d" * (big // 11)).encode(), "emoji"),
    ):
        yield "kernels", f"10 MB of {what}", data
        yield "encoder", f"64 kB of {what}", data[: 1 << 16]
        for target, start, end in (
            ("csv", b"id,text\n1,", b"\n2,x\n"),
            ("csv", b'id,text\n1,"', b'"\n2,x\n'),
            ("jsonl", b'{"text": "a"}\n{"text": "', b'"}\n{"text": "x"}\n'),
        ):
            yield target, f"a line of 10 MB of {what}", start + data + end
    for data in _unicode():
        yield "kernels", "Unicode", data
    for data in itertools.islice(_unicode(), 0, None, 12):
        yield "encoder", "Unicode", data


def _wide() -> Iterator[Shape]:
    names = [f"c{i}" for i in range(100_000)]
    yield (
        "csv",
        "100,000 columns",
        ",".join(["text", *names]).encode() + b"\n" + b"x," * 10**5 + b"x\n",
    )
    yield (
        "csv",
        "100,000 columns, short rows",
        ",".join(["text", *names]).encode() + b"\n" + b"x\n" * 1000,
    )
    yield "csv", "1 MB of blank lines, then a header", b"\n" * (1 << 20) + b"id,text\n1,x\n"
    yield "csv", "a quote that is never closed", b'id,text\n1,"' + b"a,b\n" * 10**6
    yield "csv", "good and torn rows in turn", b"id,text\n" + b'1,x\n2,"x" y\n' * 10**5
    yield "csv", "rows of two and three fields in turn", b"id,text\n" + b"1,x\n2,x,y\n" * 10**5
    yield "csv", "quotes alone", b"id,text\n" + b'"' * (1 << 20)
    yield "jsonl", "100,000 columns", json.dumps(dict.fromkeys(["text", *names], "x")).encode()
    yield (
        "jsonl",
        "100,000 columns, one a line",
        b"".join(b'{"text":"a","%s":1}\n' % n.encode() for n in names),
    )
    yield (
        "parquet",
        "20,000 columns",
        _parquet(pa.table({"text": ["x"], **{name: [1] for name in names[:20_000]}})),
    )
    yield "parquet", "10,000,000 nulls", _parquet(pa.table({"text": pa.nulls(10**7, pa.string())}))
    yield "parquet", "a text of 64 MB", _parquet(pa.table({"text": ["x" * (64 << 20), "y"]}))
    yield (
        "parquet",
        "lone surrogates",
        _parquet(pa.table({"text": pa.array([b"\xed\xa0\x80", b"a\x00b", b"\xff"], pa.binary())})),
    )


def _deep() -> Iterator[Shape]:
    for opening, closing in (
        (b"[", b"]"),
        (b'{"a":', b"}"),
        (b'{"text":', b"}"),
        (b'[{"content":', b"}]"),
    ):
        deep = opening * DEEP + b"1" + closing * DEEP
        yield "jsonl", "nested", deep + b"\n"
        yield "jsonl", "nested in a column", b'{"text":"a","b":1}\n{"text":"a","b":' + deep + b"}\n"
        yield "jsonl", "nested text", b'{"text":' + deep + b"}\n"
        yield (
            "jsonl",
            "nested conversation",
            b'{"messages":[{"role":"a","content":' + deep + b"}]}\n",
        )
        yield "calibration", "nested", deep
        yield "calibration", "nested maps", b'{"format":1,"maps":' + deep + b"}"
        yield "worker", "nested", b"\1" + b"\0" * 7 + len(deep).to_bytes(8, "little") + deep
        for k in range(3):
            yield "run", "nested", bytes([k]) + deep
        some = opening * 90 + b'"a"' + closing * 90
        yield "jsonl", "nested 90 deep", (b'{"text":"a","messages":' + some + b"}\n") * 3
    nested: Any = "x"
    for _ in range(60):
        nested = [nested]
    yield "parquet", "nested", _parquet(pa.table({"text": ["a"], "deep": [nested]}))
    talk = pa.table({"messages": [[{"role": "a", "content": nested}]]})
    yield "parquet", "nested conversation", _parquet(talk)


def _large_policies() -> Iterator[Shape]:
    for data, what in (
        (b"a" + b".a" * 50_000 + b" = 1", "a dotted key"),
        (b"[a" + b".a" * 50_000 + b"]", "a dotted table"),
        (b"x = {a" + b".a" * 50_000 + b" = 1}", "a dotted key in a table"),
        (b"".join(b"c%d%b = 1\n" % (i, b".b" * 15) for i in range(6_000)), "long dotted keys"),
        (b"".join(b"a.b%d = 1\n" % i for i in range(20_000)), "keys of one table"),
        (b"".join(b"[t%d.a.b.c]\n" % i for i in range(15_000)), "tables"),
        (b"[[rule]]\n" * 25_000, "empty rules"),
        (b"[[rule]]\nname = 'a'\n" * 50_000, "rules of one name"),
        (b"[[lexicon]]\nname = 'a'\nterms = ['a']\n" * 4000, "lexicons of one name"),
        (b"a = " + b"[" * DEEP + b"]" * DEEP, "nested lists"),
        (b"a = " + b"{a=" * DEEP + b"1" + b"}" * DEEP, "nested tables"),
        (b"a = [" + b"[]," * 80_000 + b"]", "empty lists"),
        (b"a = '" + b"x" * 200_000 + b"'", "a long text"),
        (b'a = """' + b'\\\n' * 120_000 + b'"""', "folded lines"),
        (b'a = """' + b'""\\"' * 60_000, "quotes that do not end"),
        (b"'" * 250_000, "quotes"),
        (b"\"" * 250_000, "double quotes"),
        (b"x" * 200_000 + b" = 1", "a long key"),
        (b"a = " + b"1" * 200_000, "a long number"),
        (b"a = " + b"1_" * 120_000 + b"1.5", "a long fraction"),
        (b"\n" * 250_000, "lines"),
        (b"#" * 250_000, "a comment"),
        (b"\x00" * 1000, "NULs"),
    ):  # fmt: skip
        yield "policy", what, data
        yield "policy", f"{what}, after a whole policy", _policies()[1] + data
    overlays = b"".join(
        b"[overlay.o%d]\ndescription = 'd'\n[[overlay.o%d.rule]]\nname = 'r%d'\ncategory = 'hate'\n"
        b"verdict = 'flag'\nwhen = ['links > 1']\nreason = 'w'\n" % (i, i, i)
        for i in range(1500)
    )
    yield "policy", "1,500 overlays", _policies()[1] + overlays
    terms = b", ".join(b"'t%d'" % i for i in range(25_000))
    lexicon = b"[[lexicon]]\nname = 'l'\ncategory = 'hate'\nterms = [%b]\n" % terms
    yield "policy", "25,000 terms", _policies()[1] + lexicon


def _odd() -> Iterator[Shape]:
    for seed in _calibrations()[1:]:
        for data in _odd_json(seed):
            yield "calibration", "one odd value", data
    for header in _with_odd({"tally": tally.Tally().to_json(), **errors.to_json(RunError("a"))}):
        stream = io.BytesIO()
        worker.send(stream, header)
        yield "worker", "one odd value", stream.getvalue()
    for size in (1 << 40, 1 << 62, (1 << 64) - 1):
        yield "worker", "a size", size.to_bytes(8, "little")
        yield "worker", "a size", b"\1" + b"\0" * 7 + size.to_bytes(8, "little")


def _odd_runs() -> Iterator[Shape]:
    for k in range(3):
        for data in _odd_json(_damages()[k][1:]):
            yield "run", f"one odd value in {_FILES[k]}", bytes([k]) + data


SHAPES: Final = (_large_policies, _odd, _wide, _deep, _odd_runs, _long)


# -- trying ------------------------------------------------------------------------------------


def attempt(name: str, data: bytes) -> str | None:
    """What is wrong with what a target makes of the bytes, and where; None if nothing is."""
    target = TARGETS[name]
    began = time.process_time()
    try:
        target.check(data)
    except target.raises as error:
        str(error)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if "edgemod" in f.filename or f.filename == __file__] or frames
        places = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in ours[:-4:-1])
        return f"{type(error).__name__} at {places}"
    took = time.process_time() - began
    if took > target.seconds:
        return f"slow ({took:.0f} s)"
    return None


class _Findings:
    """The inputs that did what they may not, one for each place."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.known = folder, 0, set[str]()
        folder.mkdir(parents=True, exist_ok=True)

    def attempt(self, name: str, data: bytes, what: str = "") -> None:
        """Try an input; write it down if it is new."""
        self.count += 1
        found = attempt(name, data)
        if found is not None and (name + found.split("(")[0] + what) not in self.known:
            self.known.add(name + found.split("(")[0] + what)
            path = self.folder / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
            path.write_bytes(data)
            print(f"{name}: {found} {what}: {path} ({len(data)} bytes)", flush=True)


def mutated(draw: random.Random, seeds: list[bytes]) -> bytes:
    """One of the seeds with a few places changed."""
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(len(data) + 1)
        other = draw.choice(seeds)
        start = draw.randrange(len(other) + 1)
        piece = draw.choice((draw.randbytes(1), b"\0", b"\xff", other[start : start + 16]))
        data[at : at + draw.choice((0, 1, 1, 16))] = piece
    return bytes(data)


def main() -> None:
    """Search, and say how much and what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("target", choices=[*TARGETS, "shapes"])
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"))
    parser.add_argument("--corpus", type=Path, help="a folder of this target alone")
    arguments = parser.parse_args()
    findings = _Findings(arguments.found)
    name, began = arguments.target, time.monotonic()

    def report() -> None:
        minutes = (time.monotonic() - began) / 60
        print(
            f"{name}: {findings.count:,} executions, {minutes:.1f} minutes, "
            f"{len(findings.known)} findings",
            flush=True,
        )

    if name == "shapes":
        for shape in SHAPES:
            for target, what, data in shape():
                findings.attempt(target, data, what)
            report()
        return
    seeds = TARGETS[name].seeds()
    for seed in seeds:  # compiles and loads, outside any time limit
        with contextlib.suppress(*TARGETS[name].raises):
            TARGETS[name].check(seed)
    began = time.monotonic()
    if not GUIDED:
        draw = random.Random(time.time_ns())
        while time.monotonic() - began < arguments.minutes * 60:
            findings.attempt(name, mutated(draw, seeds))
        report()
        return
    corpus = arguments.corpus or _folder() / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for k, seed in enumerate(seeds):
        (corpus / str(k)).write_bytes(seed)
    options = {
        "max_total_time": int(arguments.minutes * 60),
        "max_len": 2 * max(map(len, seeds)),
        "timeout": 60,
        "rss_limit_mb": 4096,
        "artifact_prefix": f"{arguments.found}/{name}-",
        "verbosity": 0,
    }
    told = [f"-{key}={value}" for key, value in options.items()]

    last = arguments.minutes * 60 - 1  # libFuzzer ends the process itself
    times = iter((*range(60, int(last), 60), last, math.inf))
    due = next(times)

    def one(data: bytes) -> None:
        nonlocal due
        findings.attempt(name, data)
        if time.monotonic() - began > due:
            due = next(times)
            report()

    atheris.Setup([sys.argv[0], *told, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
