"""Planted patterns are found in an archive, and nothing in one that has none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import edgemod
from edgemod import findings, patterns, report_page, traces, trends
from edgemod.errors import InputError, OutputError, RunError
from edgemod.policy import Policy
from edgemod.rehearsal import Archive
from edgemod.screen import trends as screen
from edgemod.words import Verdict
from test_cli import run

pytestmark = pytest.mark.usefixtures("one_process")

ORDINARY = """
garden kettle bicycle window paper ladder river morning coffee teacher library bread pencil basket
mountain winter ticket blanket recipe camera engine market letter bridge candle harbour violin
meadow orchard station picture lantern button carpet saddle mirror barrel anchor cotton drawer
feather hammer island jacket kitchen lemon marble needle onion parcel quilt ribbon sofa table
umbrella valley wagon yarn zebra bottle castle dinner elbow fabric glove honey ink jar
"""
WORDS = ORDINARY.split()
POLICY = """
name = "trends"
version = "1"

[category.toxic]
definition = "made up"
severity = 1

[[lexicon]]
name = "made_up"
category = "toxic"
terms = ["blorpwort"]
"""
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
N = 3000


def background(n: int, random: np.random.Generator) -> list[str]:
    """Texts of ordinary words that have nothing in common but those."""
    return [" ".join(random.choice(WORDS, random.integers(9, 20))) for _ in range(n)]


def moments(n: int, random: np.random.Generator) -> list[datetime]:
    """Any time in 60 days."""
    return [BEGIN + timedelta(seconds=float(s)) for s in random.random(n) * 60 * 86400]


def finished(folder: Path, columns: dict[str, Any], random: np.random.Generator) -> Path:
    """A run of these records whose verdicts say nothing of the texts."""
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "in.parquet", row_group_size=700)
    out = folder / "out"
    edgemod.triage(folder / "in.parquet", out, model=None, workers=1, chunk_rows=512)
    for part in sorted((out / "decisions").glob("*.parquet")):
        table = pq.read_table(part)
        draw = random.random(table.num_rows)
        verdicts = np.where(draw < 0.04, "flag", np.where(draw < 0.2, "review", "clear"))
        categories = np.where(random.random(table.num_rows) < 0.5, "hate", "spam_scam")
        for name, values in (("verdict", verdicts), ("category", categories)):
            at = table.column_names.index(name)
            kept = [None if v == "clear" and name == "category" else str(c)
                    for v, c in zip(verdicts, values, strict=True)]  # fmt: skip
            column = pa.array(kept).cast(table.schema.field(at).type)
            table = table.set_column(at, table.schema.field(at), column)
        pq.write_table(table, part)
    return out


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "policy.toml"
    path.write_text(POLICY)
    return path


def planted(random: np.random.Generator) -> dict[str, Any]:
    """Background with one pattern of each kind; ids say which."""
    rows: list[tuple[str, str, datetime, str, str]] = []
    for i, (text, moment) in enumerate(zip(background(N, random), moments(N, random), strict=True)):
        rows.append(
            (f"b{i}", text, moment, f"u{random.integers(900)}", "north" if i % 2 else "south")
        )

    def plant(kind: str, texts: Sequence[str], days: npt.NDArray[np.float64], authors: int) -> None:
        for i, (text, day) in enumerate(zip(texts, days, strict=True)):
            when = BEGIN + timedelta(days=float(day))
            rows.append((f"{kind}{i}", text, when, f"{kind} author {i % authors}", "north"))

    copies = (
        "everybody gathers acorns behind our old lighthouse because squirrels pay well, call {}"
    )
    plant("campaign", [copies.format(i) for i in range(40)], random.random(40) * 60, 3)
    burst = "tonight at nine the purple tractors leave for the quarry, bring {} spoons and a friend"
    plant("burst", [burst.format(i) for i in range(25)], 20 + random.random(25) / 12, 20)
    spelled = [f"{text} bl0rpw0rt" for text in background(14, random)]
    plant("spelling", spelled, 45 + random.random(14) * 15, 14)
    missed = [f"{text} blorpwart" for text in background(60, random)]
    plant("miss", missed, 50 + random.random(60) * 10, 60)
    rising = [f"{text} zanzibrite" for text in background(80, random)]
    plant("term", rising, 30 + random.random(80) * 30, 80)
    columns = zip(*rows, strict=True)
    return dict(zip(("id", "text", "created_at", "author", "place"), columns, strict=True))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, one_process: None) -> Path:
    random = np.random.default_rng(11)
    return finished(tmp_path_factory.mktemp("planted"), planted(random), random)


def of_kind(found: findings.Trends, kind: str) -> list[findings.Finding]:
    return [finding for finding in found.findings if finding.kind == kind]


def test_planted_patterns_are_found(archive: Path, policy: Path, tmp_path: Path) -> None:
    found = trends.trends(archive, tmp_path / "found", by="place", policy=policy)
    campaigns = of_kind(found, "campaign")
    assert [(one.records, one.authors) for one in campaigns] == [(40, 3), (25, 20)]
    assert sorted(campaigns[0].ids) == sorted(f"campaign{i}" for i in range(40))
    assert sum(campaigns[0].verdicts.values()) == 40
    (burst,) = of_kind(found, "burst")
    assert {*burst.ids} <= {f"burst{i}" for i in range(25)}
    assert burst.records >= 24
    assert burst.first_seen is not None
    assert burst.first_seen.startswith("2024-01-21")
    assert burst.p is not None
    assert burst.p < 1e-9
    (spelling,) = of_kind(found, "obfuscation")
    assert (spelling.what, spelling.where) == ("b********", "lexicon made_up")
    assert {*spelling.ids} == {f"spelling{i}" for i in range(14)}
    (miss,) = of_kind(found, "near miss")
    assert miss.what == "b********"
    assert {*miss.ids} <= {f"miss{i}" for i in range(60)}
    terms = of_kind(found, "term")
    assert "z*********" in {one.what for one in terms if one.records >= 5}
    (rising,) = (one for one in terms if one.what == "z*********")
    assert rising.where.startswith(("from 2024-01-2", "from 2024-01-3", "from 2024-02", "in north"))
    assert rising.low is not None
    assert rising.low > 0
    assert rising.first_seen is not None
    assert rising.first_seen >= "2024-01-31"
    # What was planted, and nothing else: no ordinary word rises.
    planted_words = {"z", "b", *"egaboslpwc", *"tntptlftqbsaf", *"0123456789"}
    assert {one.what[0] for one in terms} <= planted_words
    assert of_kind(found, "mix") == []
    assert found.looked["near misses"] == 1

    document = json.loads((tmp_path / "found" / "trends.json").read_text())
    assert len(document["findings"]) == len(found.findings)
    table = pq.read_table(tmp_path / "found" / "findings.parquet")
    assert table["ids"].to_pylist() == [[*one.ids] for one in found.findings]
    everything = json.dumps(document) + str(table.to_pydict())
    for word in ("blorpwort", "bl0rpw0rt", "blorpwart", "zanzibrite", "squirrels", "tractors"):
        assert word not in everything
    with pytest.raises(OutputError, match="is there already"):
        trends.trends(archive, tmp_path / "found", policy=policy)
    assert findings.Trends.read(tmp_path / "found" / "trends.json").looked == found.looked
    shown = trends.trends(archive, tmp_path / "shown", policy=policy, show=True)
    for name in ("found", "shown"):
        page = tmp_path / f"{name}.html"
        report_page.write(archive, page, trends=tmp_path / name / "trends.json")
        text = page.read_text()
        assert "What emerges" in text
        assert all(title in text for title in ("Campaigns", "Bursts", "New spellings"))
        for word in ("blorpwort", "bl0rpw0rt", "zanzibrite", "squirrels", "acorns", "campaign1"):
            assert word not in text
    assert {one.what for one in of_kind(shown, "obfuscation")} == {"bl0rpw0rt"}
    assert any("acorns" in one.example for one in of_kind(shown, "campaign"))


def test_a_shift_of_the_mix_is_found(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    times = sorted(moments(N, random))
    columns = {"text": background(N, random), "at": times, "id": [*map(str, range(N))]}
    out = finished(tmp_path, columns, random)
    part = sorted((out / "decisions").glob("*.parquet"))[-1]  # the last tenth, or so
    table = pq.read_table(part)
    for name, value in (("verdict", "flag"), ("category", "hate")):
        at = table.column_names.index(name)
        old = table[name].cast(pa.string()).to_pylist()
        new = [value if i % 3 == 0 else old[i] for i in range(table.num_rows)]
        column = pa.array(new).cast(table.schema.field(at).type)
        table = table.set_column(at, table.schema.field(at), column)
    pq.write_table(table, part)
    found = trends.trends(out, time="at", windows=4)
    mixes = {(one.what, one.where.split(" to ")[0][:17]): one for one in of_kind(found, "mix")}
    rise = [one for (what, _), one in mixes.items() if what == "hate" and (one.value or 0) > 0]
    assert len(rise) == 1
    assert rise[0].low is not None
    assert rise[0].low > 0
    assert rise[0].where.endswith(found.windows[-1])


def test_a_quiet_archive_has_none(tmp_path: Path, policy: Path) -> None:
    """Each kind is found by chance in one of a hundred: of 6 archives 4 kinds, so 0.24 expected."""
    random = np.random.default_rng(4)
    columns: dict[str, Any] = {
        "text": [*background(N, random), *(f"{t} bl0rpw0rt" for t in background(9, random))],
        "id": [*map(str, range(N + 9))],
        "author": [f"u{random.integers(900)}" for _ in range(N + 9)],
        "place": random.choice(["north", "south", "east"], N + 9),
    }
    for k in range(6):
        columns[f"t{k}"] = moments(N + 9, random)
    out = finished(tmp_path, columns, random)
    found: Counter[str] = Counter()
    for k in range(6):
        one = trends.trends(out, time=f"t{k}", by="place", policy=policy, windows=4)
        assert one.looked["terms"] > 1000
        assert one.looked["spellings tested"] == 1
        found.update(finding.kind for finding in one.findings)
    assert found.total() <= 1


def test_without_times_and_of_a_share(archive: Path, policy: Path, tmp_path: Path) -> None:
    source = archive.parent / "in.parquet"
    table = pq.read_table(source).drop_columns(["created_at", "author"])
    random = np.random.default_rng(0)
    out = finished(tmp_path, table.to_pydict(), random)
    found = trends.trends(out, policy=policy, most_records=2000)
    assert found.total == table.num_rows
    assert 1850 < found.records < 2150
    assert len(found.notes) == 3
    assert of_kind(found, "burst") == []
    assert [one.authors for one in of_kind(found, "campaign")] == [None, None]
    assert all(one.ids[0].startswith(("campaign", "burst")) for one in of_kind(found, "campaign"))


def test_the_first_of_a_spelling_is_that_of_all_records_whatever_their_order(
    tmp_path: Path, policy: Path
) -> None:
    random = np.random.default_rng(8)
    times: list[datetime | None] = [*moments(N, random)]
    late = [BEGIN + timedelta(days=59, minutes=-i) for i in range(70)]
    texts = background(N, random) + [f"{text} bl0rpw0rt" for text in background(71, random)]
    columns = {"text": texts, "at": [*times, None, *late], "id": [*map(str, range(N + 71))]}
    found = trends.trends(finished(tmp_path, columns, random), time="at", policy=policy)
    (spelling,) = of_kind(found, "obfuscation")
    assert spelling.records == 71
    assert spelling.first_seen == late[-1].isoformat()
    assert any("1 record without a time" in note for note in found.notes)


def test_an_archive_without_a_record_has_none(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    edgemod.triage(tmp_path / "a.parquet", tmp_path / "out", model=None, workers=1)
    assert trends.trends(tmp_path / "out").findings == ()


def _kept(moment: npt.NDArray[np.float64], **more: Any) -> traces.Traces:
    """Records with nothing but moments."""
    n = len(moment)
    zeros = np.zeros(n, np.int64)
    return traces.Traces(
        total=n, position=np.arange(n), verdict=zeros.astype(np.int8),
        category=zeros.astype(np.int8), moment=moment, timed=True, author=zeros,
        group=zeros.astype(np.int32), groups=[], signatures=np.zeros((0, 64), np.uint16),
        signed=zeros[:0], **{"spellings": {}, **more},
    )  # fmt: skip


def test_a_burst_is_surprising_among_all_that_were_scanned() -> None:
    """One cluster of 300 is a little dense, as some must be: no burst, and it is one alone."""
    random = np.random.default_rng(3)
    moment = np.sort(random.random(40_000)) * 1e6
    sparse = [np.sort(random.choice(40_000, 6, replace=False)) for _ in range(299)]
    dense = np.sort(
        np.append(random.choice(40_000, 34, replace=False), 20_000 + 100 * np.arange(7))
    )
    low = dense / 40_000
    p, *_ = patterns.scan(low, low + 1 / 40_000)
    assert 1e-4 < p < patterns.ALPHA
    archive, policy = cast(Archive, None), cast(Policy, None)
    look = trends._Look(Path(), archive, policy, _kept(moment), 4, False)
    assert len(look._bursts([dense])) == 1
    assert look._bursts([dense, *sparse]) == []
    assert look.looked["clusters scanned for bursts"] == 300


def test_records_without_a_time_do_not_make_a_spelling_new() -> None:
    """One of six is known to be late: that is chance one in ten."""
    moment = np.append(np.arange(1000.0), np.full(5, np.nan))
    one = traces.Spelling(6, 1, 900, [900, *range(1000, 1005)])
    archive, policy = cast(Archive, None), cast(Policy, None)
    for timed, tested, found in ((1, 0, 0), (6, 1, 1)):
        one.timed = timed
        kept = _kept(moment, spellings={("made_up", "bl0rp"): one})
        look = trends._Look(Path(), archive, policy, kept, 4, False)
        assert len(look.obfuscations()) == found
        assert look.looked["spellings tested"] == tested


def test_examples_of_a_run_with_placeholders_have_them(tmp_path: Path, policy: Path) -> None:
    copies = [f"write to sally.smith@example.org about the purple tractor {i}" for i in range(6)]
    pq.write_table(pa.table({"text": copies}), tmp_path / "in.parquet")
    edgemod.triage(tmp_path / "in.parquet", tmp_path / "out", model=None, workers=1,
                   redact_pii=True)  # fmt: skip
    found = trends.trends(tmp_path / "out", tmp_path / "found", policy=policy, show=True)
    (campaign,) = of_kind(found, "campaign")
    assert campaign.example.startswith("write to [email] about")
    assert b"sally" not in (tmp_path / "found" / "trends.json").read_bytes()


def test_what_will_not_do_is_told(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="complete run"):
        trends.trends(tmp_path)
    with pytest.raises(InputError, match="no column 'plaze'"):
        trends.trends(archive, by="plaze")
    for column in ("text", "id", "author"):
        with pytest.raises(InputError, match="no column of groups"):
            trends.trends(archive, by=column)
    with pytest.raises(InputError, match="1 windows"):
        trends.trends(archive, windows=1)


def test_a_page_takes_the_trends_of_its_run_alone(archive: Path, tmp_path: Path) -> None:
    file, page = tmp_path / "trends.json", tmp_path / "page.html"
    for content in ("", "[]", "{}", "[" * 50_000, '{"findings": 1}'):
        file.write_text(content)
        with pytest.raises(InputError, match="cannot be read as what 'edgemod trends' found"):
            report_page.write(archive, page, trends=file)
    evil = "<script>x</script>\u202e\x1b[31m {{x}} " + "long" * 50
    finding = findings.Finding(
        "term", evil, evil, 5, 2, evil, None, 1.0, 0.5, 1.5, 0.01, {}, evil, (evil,)
    )
    told = findings.Trends((finding,), 1, 1, (evil,), {}, (evil,), "another")
    file.write_text(json.dumps(told.to_json()))
    with pytest.raises(InputError, match="is about another input"):
        report_page.write(archive, page, trends=file)
    plan = json.loads((archive / "run.json").read_text())["plan"]
    file.write_text(json.dumps(replace(told, input=plan["input"]).to_json()))
    report_page.write(archive, page, trends=file)
    text = page.read_text()
    assert "<script" not in text
    assert not {c for c in text if not c.isprintable()} - {"\n"}


def test_the_command_shows_tables(archive: Path, policy: Path) -> None:
    told = run("trends", archive, "--by", "place", "--policy", policy)
    assert told.returncode == 0, told.stderr
    for part in ("Campaigns", "Bursts", "Rising terms", "New spellings"):
        assert part in told.stdout
    assert "zanzibrite" not in told.stdout
    assert Verdict.flag.name in told.stdout


def test_findings_that_are_not_shown_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    one = findings.Finding(
        "term", "w***", "2026", 9, None, None, None, 1.0, 0.5, 1.5, 0.01, {}, "", ("1",)
    )
    found = findings.Trends((one,) * 23, 100, 100, ("a", "b"), {"terms": 23}, (), "")
    screen.trends(found, None)
    assert "and 3 more: -o FOLDER keeps all" in capsys.readouterr().out
