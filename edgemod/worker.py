"""A worker process: takes chunks on its standard input, writes their parts, answers in JSON.

The parent (crew.py) starts ``python -m edgemod.worker`` once for each worker. A process of
its own means that a text that kills the native code kills one worker and not the run, and
that the memory of the models is accounted for. Messages are a length-prefixed JSON header
followed by Arrow IPC streams; nothing is pickled, and no answer carries the text of a record:
of an unexpected exception only its type and the places it passed through are told. While the
language model reads on, signs of life (``alive``) go before the answer; so does what is logged.

Or it measures and writes nothing (measuring.py): then the answer carries arrays.

Files of chunk k, in the order they appear (the last makes the chunk complete):
``work/review-k.parquet``, ``work/tally-k.json``, ``scores/part-k.parquet`` where scores are kept,
``decisions/part-k.parquet``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import resource
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import edgemod
from edgemod import errors, offline
from edgemod.errors import EdgemodError, OutputError, RunError

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from edgemod.model import Model
    from edgemod.records import Chunk
    from edgemod.triager import Triager

_LENGTH: Final = struct.Struct("<Q")


def send(stream: IO[bytes], header: dict[str, Any], batches: Sequence[pa.RecordBatch] = ()) -> None:
    """Write one message: a JSON header and record batches, each an Arrow IPC stream."""
    blobs: list[Any] = [json.dumps(header).encode()]
    if batches:
        import pyarrow as pa

        for batch in batches:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch)
            blobs.append(sink.getvalue())
    stream.write(_LENGTH.pack(len(blobs)))
    for blob in blobs:
        stream.write(_LENGTH.pack(len(blob)))
        stream.write(blob)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], list[pa.RecordBatch]]:
    """Read one message that ``send`` wrote.

    Raises EOFError where the other side is gone, ValueError where it wrote something else.
    """
    try:
        header, batches = _message(stream)
    except (
        LookupError, TypeError, OverflowError, MemoryError, RuntimeError, StopIteration,
    ) as error:  # fmt: skip
        raise ValueError("not a message") from error  # Arrow's errors are of all these kinds
    if not isinstance(header, dict):
        raise ValueError("not a message")
    return header, batches


def _message(stream: IO[bytes]) -> tuple[Any, list[pa.RecordBatch]]:
    (count,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    blobs = []
    for _ in range(count):
        (size,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
        blobs.append(_exactly(stream, size))
    batches = []
    for blob in blobs[1:]:
        import pyarrow as pa

        with pa.ipc.open_stream(pa.py_buffer(blob)) as reader:
            batches.append(reader.read_next_batch())
    return json.loads(blobs[0]), batches


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


def part_name(index: int) -> str:
    """The file name of a chunk's decisions: ``part-000000.parquet``."""
    return f"part-{index:06d}.parquet"


def files(out: Path, index: int) -> tuple[Path, Path, Path]:
    """Paths of a chunk's review rows (no file if there are none), tally and decisions."""
    return (
        out / "work" / f"review-{index:06d}.parquet",
        out / "work" / f"tally-{index:06d}.json",
        out / "decisions" / part_name(index),
    )


def scores_file(out: Path, index: int) -> Path:
    """Path of a chunk's scores, where a run keeps them."""
    return out / "scores" / part_name(index)


def main() -> None:
    """Serve chunks until standard input closes."""
    offline.guard()  # before anything else is imported
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    parent = os.getppid()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    source = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    turn = threading.Lock()  # who writes to it
    os.dup2(2, 1)  # whatever native code prints must not enter the conversation
    logging.getLogger("edgemod").addHandler(_Told(answers, turn))
    try:
        setup, _ = receive(source)
        triager = _start(setup)
        from edgemod import encryption

        ready = {
            "fingerprints": {**triager.fingerprints(), "encryption": encryption.fingerprint()},
            "note": triager.calibration.note,
            "certificate": triager.calibration.certificate,
            "max_text_bytes": triager.policy.max_text_bytes,
            "reads_context": triager.model is not None and triager.model.kind == "guard",
        }
        send(answers, ready)
    except EOFError:
        return
    except Exception as error:
        send(answers, describe(error))
        return
    if triager.model is not None:
        threading.Thread(target=_beat, args=(triager.model, answers, turn), daemon=True).start()
    while True:
        try:
            header, (records, texts) = receive(source)
        except EOFError:
            return
        try:
            from edgemod.records import Chunk

            chunk, found = Chunk(header["chunk"], records, texts), []
            answer: dict[str, Any] = {}
            if setup["measure"]:
                found = [packed(measured(triager, chunk, setup["measure"]))]
            else:
                answer["tally"] = _triage(triager, chunk, setup, header, parent)
            answer["peak_bytes"] = peak_bytes()
        except Exception as error:
            answer, found = describe(error), []
        with turn, contextlib.suppress(BrokenPipeError):
            send(answers, answer, found)


class _Told(logging.Handler):
    """Passes on what is logged, for the parent to log it: nobody sees the stderr of a worker."""

    def __init__(self, answers: IO[bytes], turn: threading.Lock) -> None:
        super().__init__()
        self._answers, self._turn = answers, turn

    def emit(self, record: logging.LogRecord) -> None:
        """Send it, as a sign of life."""
        with self._turn, contextlib.suppress(BrokenPipeError):
            send(self._answers, {"alive": 0, "told": record.getMessage()})


def _end_with(parent: int) -> None:
    """End this process when the run is gone: a chunk can be minutes of work for nobody.

    A part takes its name only when it is complete, so that there is no wrong moment.
    """
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def _beat(model: Model, answers: IO[bytes], turn: threading.Lock) -> None:
    """Tell the parent, once a second, that the language model has read on, if it has."""
    told = 0
    with contextlib.suppress(BrokenPipeError):
        while True:
            time.sleep(1)
            calls = model.calls
            if calls != told:
                with turn:
                    send(answers, {"alive": calls})
                told = calls


def _start(setup: dict[str, Any]) -> Triager:
    import pyarrow as pa

    from edgemod import language
    from edgemod.triager import Triager

    pa.set_cpu_count(1)
    triager = Triager(
        setup["policy"],
        setup["model"],
        calibration=setup["calibration"],
        overlay=setup["overlay"],
        threads=setup["threads"],
    )
    # The first worker ever compiles the kernels here, alone; the others find them in the cache.
    triager.triage_batch(pa.record_batch({"text": ["warm"]}))
    if triager.model is not None:  # one that cannot score at all shall end the run, not its chunks
        triager.model.score(pa.array(["warm"], pa.large_string()), None)
    with contextlib.suppress(OutputError):  # of a full disk: told when needed
        language.identify("warm")
    return triager


def _triage(
    triager: Triager, chunk: Chunk, setup: dict[str, Any], header: dict[str, Any], parent: int
) -> dict[str, Any]:
    """A chunk's tally; its files are written unless this is a trial (``keep`` is false)."""
    from edgemod import kept_scores, privacy, review

    decisions, tally, scores = triager.triage_chunk(chunk)
    # A marker is a file in OUT that says that a run on a cluster still goes on (ray.py).
    marker = header.get("marker")
    # What carries texts over a cluster is held by no guard, so nothing is claimed for this process.
    tally.offline["none" if marker else offline.held()] = tally.records
    tally.lost.update(header["lost"])
    pending = review.pending(chunk, decisions, triager.policy)
    if setup["redact_pii"]:
        pending = privacy.redact(pending)
    document = tally.to_json()
    kept = None
    if setup["keep_scores"]:
        kept = kept_scores.table(chunk, scores, triager.reading())
    # Whatever a text may break happens before the first file, in a trial too.
    made = encoded_chunk(Path(setup["out"]), chunk.index, decisions, pending, document, kept)
    if header["keep"]:
        # Where the run is gone another may own the folder by now.
        if os.getppid() != parent or (marker and not os.path.exists(marker)):
            raise SystemExit(0)
        check_folder(Path(setup["out"]), header.get("folder"))
        write_chunk(made)
    return document


def measured(triager: Triager, chunk: Chunk, what: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """What triager and models say of a chunk, no file written.

    ``what`` is stages: the probabilities of each, float32 (records, K), NaN where not scored, and
    for ``cascade`` ``verdicts``, int8 (records,) of words.Verdict. Or ``examine``: the fields of
    ``triager.Examined`` and its evidence that are there.
    """
    import numpy as np

    from edgemod.triager import probabilities_of
    from edgemod.words import Verdict

    if list(what) == ["examine"]:
        seen = triager.examine(chunk)
        evidence = {name: part for name, part in vars(seen.evidence).items() if part is not None}
        return {**evidence, "owner": seen.owner, "failed": seen.failed}
    found: dict[str, npt.NDArray[Any]] = {}
    for stage in ("filter", "model", "cascade"):  # the model, which reads all, before the cascade
        if stage not in what:
            continue
        if stage == "cascade":
            decisions = triager.triage_chunk(chunk).decisions
            words = decisions["verdict"].to_pylist()
            found["verdicts"] = np.array([Verdict[word] for word in words], np.int8)
            found[stage] = probabilities_of(decisions)
        else:
            found[stage] = triager.probabilities(chunk, stage)
    return found


def packed(arrays: dict[str, npt.NDArray[Any]]) -> pa.RecordBatch:
    """Arrays as one row of bytes, with what they are in the metadata; ``unpacked`` undoes it."""
    import pyarrow as pa

    told = {name: {"dtype": a.dtype.str, "shape": str(a.shape)} for name, a in arrays.items()}
    return pa.RecordBatch.from_arrays(
        [pa.array([array.tobytes()], pa.large_binary()) for array in arrays.values()],
        schema=pa.schema(
            [pa.field(name, pa.large_binary(), metadata=told[name]) for name in arrays]
        ),
    )


def unpacked(batch: pa.RecordBatch) -> dict[str, npt.NDArray[Any]]:
    """The arrays of ``packed``, to be read only."""
    import numpy as np

    return {
        field.name: np.frombuffer(column[0].as_buffer(), field.metadata[b"dtype"].decode()).reshape(
            [int(n) for n in re.findall(rb"\d+", field.metadata[b"shape"])]
        )
        for field, column in zip(batch.schema, batch.columns, strict=True)
    }


def encoded_chunk(
    out: Path,
    index: int,
    decisions: pa.RecordBatch,
    pending: pa.Table,
    document: dict[str, Any],
    scores: pa.Table | None = None,
) -> list[tuple[Path, bytes | pa.Buffer | None]]:
    """The files of a chunk in the order they appear, with what is in them; None: not there."""
    import pyarrow as pa

    from edgemod.parts import encoded

    queue, numbers, part = files(out, index)
    return [
        (queue, encoded(pending) if pending.num_rows else None),
        (numbers, json.dumps(document).encode()),
        *([] if scores is None else [(scores_file(out, index), encoded(scores))]),
        (part, encoded(pa.Table.from_batches([decisions]))),
    ]


def folder_id(told: os.stat_result) -> list[int]:
    """What tells a folder from one that takes its name later: device and inode."""
    return [told.st_dev, told.st_ino]


def check_folder(out: Path, folder: list[int] | None) -> None:
    """Raise RunError if ``out`` is not ``folder`` (``folder_id``; None: any) any more.

    It may be the folder of another run by now. The lock that the run holds keeps the inode from
    being given to another folder.
    """
    if folder is None or (out.is_dir() and folder_id(out.stat()) == folder):
        return
    raise RunError(
        "the folder was removed or replaced while the run was going on",
        where=str(out),
        fix="Leave the folder of a run where it is, and run the same command again.",
    )


def write_chunk(made: Sequence[tuple[Path, bytes | pa.Buffer | None]]) -> None:
    """Write what ``encoded_chunk`` made; remove what another attempt left. Raises OutputError."""
    from edgemod.parts import remove, write_bytes

    for path, data in made:
        if data is None:
            remove(path)
        else:
            write_bytes(path, data)


def code_version() -> str:
    """The version and the first 12 hex digits of the SHA-256 of the package's source files."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{edgemod.__version__}+{digest.hexdigest()[:12]}"


def peak_bytes() -> int:
    """The greatest resident memory this process has had, in bytes."""
    try:
        # Not ru_maxrss: on Linux that starts from the peak of the process that started this one.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe(error: BaseException) -> dict[str, Any]:
    """An error as JSON. Only edgemod's own keep their message: others may quote a record."""
    if isinstance(error, EdgemodError):
        return errors.to_json(error)
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
    return {"kind": type(error).__name__, "places": places}


if __name__ == "__main__":
    main()
