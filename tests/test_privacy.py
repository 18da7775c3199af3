"""Outputs of a run that name nobody."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgemod
from edgemod import audit, explain, features, privacy, rehearsal
from edgemod.calibrating import calibrate
from edgemod.errors import InputError, RunError
from edgemod.privacy import Pseudonyms
from edgemod.triager import Triager
from samples import sentences

KEY = b"sixteen bytes, at least"
pytestmark = pytest.mark.usefixtures("measured_here")
AUTHORS = [f"author-{i % 7}" for i in range(150)]


def key_file(folder: Path, content: bytes = KEY, mode: int = 0o600, name: str = "key") -> Path:
    path = folder / name
    path.write_bytes(content)
    path.chmod(mode)
    return path


def table(folder: Path, pattern: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob(pattern))])


# -- keys and pseudonyms -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (b"fifteen bytes..", 0o600, "15 bytes is too short, 16 at least"),
        (bytes(70_000), 0o600, "longer than 65536 bytes"),
        (KEY, 0o640, "open to others than its owner"),
        (KEY, 0o604, "open to others than its owner"),
        (KEY, 0o602, "open to others than its owner"),
    ],
)
def test_bad_keys_are_refused(tmp_path: Path, content: bytes, mode: int, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        Pseudonyms.open(key_file(tmp_path, content, mode))
    assert str(tmp_path / "key") in str(caught.value)


def test_what_is_no_file_is_no_key(tmp_path: Path) -> None:
    for path, said in ((tmp_path, "directory"), (Path("/dev/zero"), "no file")):
        with pytest.raises(InputError, match=said):
            Pseudonyms.open(path)
    with pytest.raises(InputError, match="No such file"):
        Pseudonyms.open(tmp_path / "gone")


def test_a_pseudonym_is_what_the_standard_says(tmp_path: Path) -> None:
    names = Pseudonyms.open(key_file(tmp_path, KEY + b"\n"))
    full = hmac.new(KEY + b"\n", b"author_id\0bob", hashlib.sha256).hexdigest()
    assert names.of("author_id", b"bob") == full[:32]
    assert KEY.decode() not in repr(names) + str(vars(Pseudonyms))


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_one_value_one_pseudonym_and_kinds_do_not_match(one: bytes, other: bytes) -> None:
    names = Pseudonyms(KEY)
    made = {names.of(kind, value) for kind in privacy.KINDS for value in (one, other)}
    assert len(made) == len({one, other}) * len(privacy.KINDS)
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in made)
    assert not made & {Pseudonyms(KEY + b"!").of(kind, one) for kind in privacy.KINDS}
    assert not any(names.fingerprint.startswith(name) for name in made)


# -- personal data -----------------------------------------------------------------------------


def redacted(*texts: str | None) -> list[str | None]:
    """Texts of the queue, redacted; their contexts must come out alike."""
    column = pa.array(texts, pa.large_string())
    told = {"status": ["ok"] * len(texts), "text": column, "context": column}
    rows = privacy.redact(pa.table(told))
    assert rows["text"].equals(rows["context"])
    assert rows.schema.names == ["status", "text", "context"]
    return list(rows["text"].to_pylist())


def test_personal_data_is_replaced_and_the_rest_stays() -> None:
    told = redacted(
        "write to ann@site.example or call +1 415 555 0132, ünïcode stays 🙂",
        None,
        "",
        "card 4111 1111 1111 1111, IBAN DE89 3704 0044 0532 0130 00, host 192.168.7.9",
        "nothing at all; see https://a.example/page",
        "https://a.example/u?mail=ann@site.example&x=1 and www.b.example/bob@site.example",
    )
    assert told == [
        "write to [email] or call [phone], ünïcode stays 🙂",
        None,
        "",
        "card [card], IBAN [iban], host [ip]",
        "nothing at all; see https://a.example/page",
        "https://a.example/u?mail=[email]&x=1 and www.b.example/[email]",
    ]


PIECES = st.sampled_from(
    ["ann@site.example", "+1 415 555 0132", "4111 1111 1111 1111", "192.168.7.9", "é", "🙂", " ",
     "https://a.example/", "?to=", "www.", "\n", ".", "[email]", "word",
     "GB82 WEST 1234 5698 7654 32"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12), st.sampled_from(["", " "]))
def test_what_is_redacted_is_found_no_more(pieces: list[str], between: str) -> None:
    text = between.join(pieces)
    (made,) = redacted(text)
    assert made is not None
    lexicons = features.Lexicons.compile(())

    def found(text: str) -> bool:
        return any(span.what in privacy.PLACEHOLDERS for span in features.spans(text, lexicons))

    assert not found(made)
    assert redacted(made) == [made]
    if not found(text) and "http" not in text and "www." not in text:
        assert made == text


# -- whole runs --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same input triaged plainly, and with pseudonyms and placeholders."""
    folder = tmp_path_factory.mktemp("private")
    texts = sentences(150)
    texts[3] = "you worthless idiot, I will find you, ann@site.example"
    texts[5] = "my card is 4111 1111 1111 1111, ask ann@site.example"
    pq.write_table(
        pa.table(
            {
                "id": [f"record-{i}" for i in range(150)],
                "author": [None, *AUTHORS[1:]],
                "thread": [f"thread-{i % 3}" for i in range(150)],
                "text": texts,
            }
        ),
        folder / "in.parquet",
    )
    key_file(folder)
    plain: Callable[..., object] = edgemod.triage
    for name, more in (("plain", {}), ("private", {"pseudonymise": folder / "key"})):
        plain(folder / "in.parquet", folder / name, model=None, workers=1, chunk_rows=64,
              redact_pii=name == "private", **more)  # fmt: skip
    return {name: folder / name for name in ("plain", "private", "key", "in.parquet")}


def test_only_the_names_differ(runs: dict[str, Path]) -> None:
    names = Pseudonyms.open(runs["key"])
    plain, hidden = (table(runs[name], "decisions/*") for name in ("plain", "private"))
    for column in ("record_id", "duplicate_of"):
        wanted = [v and names.of("record_id", v.encode()) for v in plain[column].to_pylist()]
        assert hidden[column].to_pylist() == wanted
    rest = [name for name in plain.column_names if name not in ("record_id", "duplicate_of")]
    assert hidden.select(rest).equals(plain.select(rest))
    assert set(plain["duplicate_of"].to_pylist()) > {None}

    before, after = (table(runs[name], "review/*") for name in ("plain", "private"))
    assert len(before) > 5
    for kind in privacy.KINDS:
        wanted = [v and names.of(kind, v.encode()) for v in before[kind].to_pylist()]
        assert after[kind].to_pylist() == wanted
    assert after["text"].to_pylist() == redacted(*before["text"].to_pylist())
    rest = [n for n in before.column_names if n not in (*privacy.KINDS, "text", "context")]
    assert after.select(rest).equals(before.select(rest))


def test_no_name_and_no_key_is_on_the_disk(runs: dict[str, Path]) -> None:
    plan = json.loads((runs["private"] / "run.json").read_text())["plan"]
    assert plan["pseudonyms"] == Pseudonyms(KEY).fingerprint
    assert plan["redact_pii"] is True
    secrets = [b"record-", b"author-", b"thread-", KEY, KEY.hex().encode(), b"ann@site"]
    for path in runs["private"].rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content = str(pq.read_table(path).to_pylist()).encode()
            assert [secret for secret in secrets if secret in content] == [], path.name


def test_another_key_does_not_continue_a_run(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="changed: pseudonyms"):
        edgemod.triage(runs["in.parquet"], runs["private"], model=None, workers=1, chunk_rows=64,
                       redact_pii=True, pseudonymise=key_file(tmp_path, KEY + b"?"))  # fmt: skip
    again = edgemod.triage(runs["in.parquet"], runs["private"], model=None, workers=1,
                           chunk_rows=64, redact_pii=True, pseudonymise=runs["key"])  # fmt: skip
    assert again.records == 150


def test_explain_finds_a_record_by_either_name(runs: dict[str, Path], tmp_path: Path) -> None:
    known = Pseudonyms(KEY).of("record_id", b"record-5")
    with Triager(model=None) as triager:
        found = explain.explain(runs["private"], known, triager)
        same = explain.explain(runs["private"], "record-5", triager, runs["key"])
        assert found.decision["record_id"] == known
        assert same.decision["record_id"] == "record-5"
        assert "Your contribution record-5" in explain.notice(same, "us")
        with pytest.raises(InputError, match="--pseudonymise KEYFILE finds"):
            explain.explain(runs["private"], "record-5", triager)
        for run, key in (
            (runs["private"], key_file(tmp_path, KEY + b"?")),
            (runs["plain"], runs["key"]),
        ):
            with pytest.raises(InputError, match="not the key that the run was made with"):
                explain.explain(run, "record-5", triager, key)


def test_samples_and_comparisons_name_nobody(runs: dict[str, Path], tmp_path: Path) -> None:
    audit.sample(runs["private"], tmp_path / "sample", n=150)
    sample = table(tmp_path / "sample", "*.parquet")
    ids = set(table(runs["private"], "decisions/*")["record_id"].to_pylist())
    assert set(sample["record_id"].to_pylist()) <= ids
    assert sample["author_id"].null_count == sample["thread_id"].null_count == len(sample) > 50
    assert not any("ann@site" in text for text in sample["text"].to_pylist())

    strict = tmp_path / "strict.toml"
    strict.write_text(
        'name = "s"\nversion = "1"\nlanguages = []\n[category.spam_scam]\n'
        'severity = 2\ndefinition = "d"\nfilter = { clear_below = 0.0, flag_above = 1.0 }\n'
    )
    with (
        Triager(model=None) as before,
        Triager(strict, model=None, beside=before) as after,
    ):
        found = rehearsal.compare(before, after, rehearsal.Archive.open(runs["private"]))
    told = [name for ids in found.ids.values() for name in ids]
    assert told
    assert all(name.startswith("in.parquet#") for name in told)


def test_a_name_in_the_path_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "author=bob"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"id": ["1"], "text": ["hello"]}), folder / "a.parquet")
    with pytest.raises(InputError, match="has author in its path"):
        edgemod.triage(tmp_path / "in", tmp_path / "out", model=None, workers=1,
                       author="author", pseudonymise=key_file(tmp_path))  # fmt: skip


def test_what_a_cut_went_through_is_not_shown(tmp_path: Path) -> None:
    path, out = tmp_path / "in.parquet", tmp_path / "out"
    card = "4111 1111 1111 1111"
    context = f"{card[:10]}{card[10:]} " + "z " * 2043  # the first four digits are cut off
    cut_mail = "x" * 65_520 + f" someone.{'y' * 30}@example.com tail"
    table = pa.table({"text": ["?" * 30 + " 死ね", cut_mail], "before": [context, None]})
    pq.write_table(table, path)
    edgemod.triage(
        path, out, model=None, workers=1, context="before", redact_pii=True, review_format="jsonl"
    )
    told = (out / "review" / "review.jsonl").read_text()
    assert "1111" not in told
    assert "someone" not in told
    assert told.count("[cut]") == 2
    assert "z z z" in told


def test_strata_that_are_names_are_refused(tmp_path: Path) -> None:
    texts = [f"{'you idiot' if i % 3 == 0 else 'good morning'} {i}" for i in range(600)]
    labels = {
        "text": texts,
        "toxic": [int(i % 3 == 0) for i in range(600)],
        "usr": [f"name{i % 2}" for i in range(600)],
    }
    pq.write_table(pa.table(labels), tmp_path / "in.parquet")
    own = tmp_path / "own.json"
    calibrate(tmp_path / "in.parquet", own, max_miss_rate=0.3, by="usr", model=None)
    with pytest.raises(InputError, match="tells strata apart by 'usr'"):
        edgemod.triage(
            tmp_path / "in.parquet", tmp_path / "out", model=None, workers=1, author="usr",
            calibration=own, pseudonymise=key_file(tmp_path),
        )  # fmt: skip
