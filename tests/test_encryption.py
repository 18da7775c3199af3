"""Encrypted Parquet in and out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest
from click.testing import CliRunner, Result

import edgemod
from edgemod import (
    audit,
    encryption,
    explain,
    formats,
    parts,
    rehearsal,
    review,
    review_formats,
    run_folder,
)
from edgemod.cli import cli
from edgemod.errors import InputError, RunError
from edgemod.sources import discover
from edgemod.triager import Triager
from edgemod.words import Status
from samples import sentences

KEY = bytes(range(32))
MARKER = "quokka"
"""In every text, id and author of the dump, and nowhere in edgemod."""
ROWS = 150
TABLE = pa.table(
    {
        "id": [f"{MARKER}{i}" for i in range(ROWS)],
        "author": [f"{MARKER} {i % 7}" for i in range(ROWS)],
        "text": [f"{MARKER} {text}" for text in sentences(ROWS)],
        "hate": pa.array([i % 2 for i in range(ROWS)], pa.int8()),
    }
)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins without a key; whatever one uses is forgotten after it."""
    monkeypatch.setenv(encryption.VARIABLE, "")


def key_file(folder: Path, key: bytes = KEY, name: str = "key") -> Path:
    path = folder / name
    path.write_text(key.hex() + "\n")
    path.chmod(0o600)
    return path


def dump(path: Path, key: bytes | None = KEY, table: pa.Table = TABLE, **how: Any) -> Path:
    """A file as another program writes it: pyarrow with its own settings."""
    encrypted = key and pe.create_encryption_properties(key, **how)
    pq.write_table(table, path, row_group_size=60, encryption_properties=encrypted)
    return path


def read(path: Path, key: bytes = KEY) -> pa.Table:
    """A file by pyarrow alone; it must be encrypted."""
    return pq.ParquetFile(path, decryption_properties=pe.create_decryption_properties(key)).read()


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)])


# -- keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (KEY.hex(), 0o640, "open to others than its owner"),
        (KEY.hex()[:-1], 0o600, "32, 48 or 64 hexadecimal digits"),
        (KEY.hex()[:-2], 0o600, "32, 48 or 64 hexadecimal digits"),
        ("x" * 64, 0o600, "32, 48 or 64 hexadecimal digits"),
        ("0 " * 32, 0o600, "32, 48 or 64 hexadecimal digits"),
        ("f" * 70_000, 0o600, "longer than 65536 bytes"),
        ("", 0o600, "too short"),
    ],
)
def test_bad_keys_are_refused(tmp_path: Path, content: str, mode: int, said: str) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(InputError, match=said) as caught:
        encryption.use(path)
    assert str(path) in str(caught.value)
    assert encryption.key_file() is None
    assert not content or content not in str(caught.value)


@pytest.mark.parametrize("size", [16, 24, 32])
def test_parts_are_encrypted_under_the_key_in_use(tmp_path: Path, size: int) -> None:
    plain, path = parts.encoded(TABLE).to_pybytes(), tmp_path / "part"
    assert parts.decoded(plain).equals(TABLE)
    encryption.use(key_file(tmp_path, KEY[:size]))
    assert parts.decoded(plain).equals(TABLE)
    one, other = (parts.encoded(TABLE).to_pybytes() for _ in range(2))
    assert one != other  # other nonces
    assert parts.decoded(one).equals(TABLE)
    parts.write_part(TABLE, path)
    assert read(path, KEY[:size]).equals(TABLE)
    assert MARKER.encode() in plain
    for name in (MARKER, "author", "text"):
        assert name.encode() not in one


def test_keys_have_fingerprints(tmp_path: Path) -> None:
    assert encryption.fingerprint() is None
    told = set()
    for number in range(3):
        encryption.use(key_file(tmp_path, bytes([number]) * 32, f"key{number}"))
        told.add(encryption.fingerprint())
    assert len(told) == 3


# -- inputs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"plaintext_footer": True}])
def test_inputs_want_their_key(tmp_path: Path, how: dict[str, Any]) -> None:
    path = dump(tmp_path / "secret.parquet", **how)
    with pytest.raises(InputError, match="no key is given") as caught:
        discover([path])
    assert "--key-file KEYFILE" in str(caught.value)
    encryption.use(key_file(tmp_path, KEY[::-1], "wrong"))
    with pytest.raises(InputError, match="under another key than the one given"):
        discover([path])
    encryption.use(key_file(tmp_path))
    (source,) = discover([path])
    assert source.rows == ROWS
    texts = [run.batch["text"] for run in formats.rows(source, ["text"]) if run.batch is not None]
    assert pa.chunked_array(texts).equals(TABLE["text"])


def test_several_files_without_their_key_say_how_to_give_it(tmp_path: Path) -> None:
    for name in "ab":
        dump(tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match="2 input files") as caught:
        discover([tmp_path])
    assert "--key-file KEYFILE" in str(caught.value)


def test_ciphers_names_without_suffix_and_plain_files(tmp_path: Path) -> None:
    folder = tmp_path / "dump"
    folder.mkdir()
    dump(folder / "counter.parquet", encryption_algorithm="AES_GCM_CTR_V1")
    dump(folder / "bound.parquet", aad_prefix=b"of this table")
    dump(folder / "part-0")
    dump(folder / "plain.parquet", None)
    encryption.use(key_file(tmp_path))
    assert [source.rows for source in discover([folder])] == [ROWS] * 4


class _Service(pe.KmsClient):  # type: ignore[misc,unused-ignore]
    """A key management service that shows its data keys, for a file with a key a column."""

    keys: dict[str, bytes]

    def __init__(self) -> None:
        super().__init__()
        self.keys = {}

    def wrap_key(self, key: bytes, name: str) -> bytes:
        self.keys[name] = key
        return name.encode()


@pytest.mark.parametrize("plain_footer", [False, True])
def test_column_keys_are_told_from_a_wrong_key(tmp_path: Path, plain_footer: bool) -> None:
    path, service = tmp_path / "columns.parquet", _Service()
    config = pe.EncryptionConfiguration(
        "footer",
        column_keys={"column": ["text"]},
        plaintext_footer=plain_footer,
        double_wrapping=False,
        data_key_length_bits=128,
    )
    made = pe.CryptoFactory(lambda _: service).file_encryption_properties(
        pe.KmsConnectionConfig(), config
    )
    pq.write_table(TABLE, path, encryption_properties=made)
    with pytest.raises(InputError, match="no key is given"):
        discover([path])
    encryption.use(key_file(tmp_path, service.keys["column"], "column"))
    with pytest.raises(InputError, match="under another key"):
        discover([path])
    encryption.use(key_file(tmp_path, service.keys["footer"], "footer"))
    with pytest.raises(InputError, match="keys for single columns") as caught:
        discover([path])
    assert "encrypt it again under one key" in str(caught.value)


def test_a_damaged_page_costs_its_rows_and_no_more(tmp_path: Path) -> None:
    path = dump(tmp_path / "a.parquet", table=TABLE.select(["text"]))
    data = bytearray(path.read_bytes())
    data[60] ^= 1  # in the first row group; the cipher notices
    path.write_bytes(data)
    encryption.use(key_file(tmp_path))
    (source,) = discover([path])
    runs = [*formats.rows(source, ["text"])]
    assert sum(run.count for run in runs) == ROWS
    assert sum(run.count for run in runs if run.batch is None) == 60


# -- whole runs --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same records triaged plainly, and encrypted by the command."""
    folder = tmp_path_factory.mktemp("runs")
    key = key_file(folder)
    dumps = {"plain": dump(folder / "a.parquet", None), "secret": dump(folder / "b.parquet")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(encryption.VARIABLE, "")
        for name, more in (("plain", ()), ("secret", ("--key-file", key))):
            done = call(*triage(dumps[name], folder / name), *more)
            assert done.exit_code == 0, done.output
    return {"key": key, "dump": dumps["secret"], **{name: folder / name for name in dumps}}


def triage(dump: Path, out: Path) -> tuple[str | Path, ...]:
    return ("triage", dump, "-o", out, "--text-column", "text", "--id-column", "id",
            "--author-column", "author", "--model", "none", "--chunk-rows", "64",
            "--keep-scores", "--workers", "1")  # fmt: skip


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_run_is_encrypted_and_says_the_same(runs: dict[str, Path]) -> None:
    names = [path.relative_to(runs["secret"]) for path in files(runs["secret"])]
    assert names == [path.relative_to(runs["plain"]) for path in files(runs["plain"])]
    assert {"decisions", "review", "scores"} < {name.parts[0] for name in names}
    seen = b""
    for name in names:
        if name.suffix == ".parquet":
            before, now = pq.ParquetFile(runs["plain"] / name).read(), read(runs["secret"] / name)
            if "source" in now.column_names:  # the one thing that differs: the name of the dump
                before, now = before.drop_columns("source"), now.drop_columns("source")
            assert now.equals(before)
            seen += (runs["plain"] / name).read_bytes()
        for leak in (MARKER.encode(), KEY, KEY.hex().encode()):
            assert leak not in (runs["secret"] / name).read_bytes()
    assert MARKER.encode() in seen  # it would have been seen
    plan = json.loads((runs["secret"] / "run.json").read_text())["plan"]
    assert len(plan["encryption"]) == 64


def test_a_shard_keeps_no_text_in_work_and_merges(
    runs: dict[str, Path], one_process: None, tmp_path: Path
) -> None:
    shards = [tmp_path / "1", tmp_path / "2"]
    for number, out in enumerate(shards, 1):
        more = ("--shard", f"{number}/2", "--key-file", runs["key"])
        assert call(*triage(runs["dump"], out), *more).exit_code == 0
        assert [*(out / "work").glob("review-*.parquet")]
        for path in files(out):
            assert MARKER.encode() not in path.read_bytes()
            assert path.suffix != ".parquet" or path.read_bytes()[-4:] == b"PARE"
    encryption.use(key_file(tmp_path, KEY[::-1], "wrong"))
    with pytest.raises(InputError, match="encrypted under another key"):
        edgemod.merge(shards, tmp_path / "merged")
    encryption.use(runs["key"])
    edgemod.merge(shards, tmp_path / "merged")
    queue = "review/review-00000.parquet"
    assert read(tmp_path / "merged" / queue).equals(read(runs["secret"] / queue))
    assert edgemod.verify(tmp_path / "merged").sound


def test_resuming_wants_the_same_key(
    runs: dict[str, Path], one_process: None, tmp_path: Path
) -> None:
    plain, wrong = dump(tmp_path / "a.parquet", None), key_file(tmp_path, KEY[::-1], "wrong")
    out = tmp_path / "out"
    options: dict[str, Any] = {"model": None, "chunk_rows": 64, "workers": 1}
    encryption.use(runs["key"])
    edgemod.triage(plain, out, **options)
    digests = {path: path.read_bytes() for path in files(out)}
    encryption.use(wrong)
    with pytest.raises(RunError, match="changed: encryption"):
        edgemod.triage(plain, out, **options)
    assert digests == {path: path.read_bytes() for path in files(out)}
    # One part is gone, as after a kill: with the key the run goes on.
    encryption.use(runs["key"])
    state = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**state, "status": "running"}))
    (out / "decisions" / "part-000001.parquet").unlink()
    assert edgemod.triage(plain, out, **options).records == ROWS


def test_verify_needs_no_key(runs: dict[str, Path]) -> None:
    assert call("verify", runs["secret"]).exit_code == 0


def test_what_reads_a_run_wants_its_key(
    runs: dict[str, Path], tmp_path: Path, triager: Triager
) -> None:
    out = runs["secret"]
    for reader in (
        lambda: audit.sample(out, tmp_path / "sample"),
        lambda: explain.explain(out, f"{MARKER}5", triager),
        lambda: rehearsal.Archive.open(str(out)),
    ):
        with pytest.raises(InputError, match="encrypted, and no key is given"):
            reader()
    encryption.use(runs["key"])
    audit.sample(out, tmp_path / "sample", n=50)
    (sample,) = files(tmp_path / "sample")
    assert MARKER in str(read(sample)["text"])
    with Triager(model=None) as without:
        assert MARKER in explain.explain(out, f"{MARKER}5", without).text
        archive = rehearsal.Archive.open(str(out))
        assert rehearsal.compare(without, without, archive).records == ROWS


def test_other_formats_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    encryption.use(runs["key"])
    for form in review_formats.FORMATS[1:]:
        with pytest.raises(InputError, match=f"{form} cannot be encrypted"):
            edgemod.triage(runs["dump"], tmp_path / "out", review_format=form, model=None)
    with pytest.raises(InputError, match="csv cannot be encrypted"):
        audit.sample(runs["secret"], tmp_path / "out", format="csv")
    assert not (tmp_path / "out").exists()


def test_a_report_names_no_quarantined_id(runs: dict[str, Path]) -> None:
    named = run_folder.with_status(runs["plain"], 0, Status.ok)
    assert named[0]["record_id"] == f"{MARKER}0"
    encryption.use(runs["key"])
    named = run_folder.with_status(runs["secret"], 0, Status.ok)
    assert (named[0]["record_id"], named[0]["source_row"]) == (None, 0)


def test_the_spill_of_the_queue_is_encrypted(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(spill: Path, pieces: Any) -> Iterator[pa.Table]:
        seen.append(spill.read_bytes())
        return sorted_buckets(spill, pieces)

    sorted_buckets = review._sorted_buckets
    monkeypatch.setattr(review, "_sorted_buckets", look)
    encryption.use(runs["key"])
    audit.sample(runs["secret"], tmp_path / "sample", n=50)
    assert seen[0]
    assert MARKER.encode() not in seen[0]


# -- other commands ----------------------------------------------------------------------------


def test_commands_take_the_key(runs: dict[str, Path], tmp_path: Path) -> None:
    scored = tmp_path / "scored.parquet"
    key = ("--key-file", runs["key"])
    for command in (
        ("inspect", runs["dump"]),
        ("score", runs["dump"], "-o", scored, "--text-column", "text", "--stage", "filter"),
        ("evaluate", runs["dump"], "--text-column", "text", "--model", "none"),
    ):
        assert "no key is given" in call(*command).output + str(call(*command).exception)
        done = call(*command, *key)
        assert done.exit_code == 0, done.output
        os.environ[encryption.VARIABLE] = ""
    assert read(scored).select(TABLE.column_names).equals(TABLE)
    shown = call("inspect", runs["dump"], *key).output
    assert f"--key-file {runs['key']}" in shown.replace("\n", "")
