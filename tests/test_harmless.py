"""One dump of the worst records there can be, walked through all that people are shown."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgemod import exits
from edgemod.cli import cli
from queues import MALICIOUS
from samples import sentences

WORST = (
    *MALICIOUS,
    "+1 -1 \t=cmd|' /C calc'!A0 ${7*7} {{7*7}} {0.__class__} %s %(x)s <%= 1 %> #{1}",
    "w" * 30_000 + " [bold]markup[/bold] [link=http://a.example]here[/link]",
    "\u200b\u2060\ufeff hidden \u202e\u2067 \ud7ff\U000e0041 \x1b]8;;http://a.example\x07link\x1b]8;;\x07",
)  # fmt: skip
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""What drives a terminal, turns a line round, or hides."""
SECRET = "zanzibrite"
"""A word of every text, and of nothing else."""
FORMULA = tuple("=+-@\t\r")
POLICY = """
name = "worst"
version = "1"
languages = []
[category.toxic]
severity = 3
definition = "Whatever it is."
[category.pii]
severity = 2
definition = "Numbers."
[[rule]]
name = "cards"
category = "pii"
verdict = "flag"
when = ["cards >= 1"]
reason = "A card."
[[rule]]
name = "words"
category = "toxic"
verdict = "review"
when = ["letters >= 1"]
reason = "It has words."
"""

Told = Callable[..., str]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """Runs a command that succeeds: what it prints, in which nothing is raw."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["edgemod", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            exits.run(cli)
        both = "".join(capsys.readouterr())
        assert (ended.value.code or 0) == 0, both
        assert RAW.findall(both) == []
        return both

    return run


class Tags(HTMLParser):
    """The elements of a page and what they may do."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.acting: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.acting += [name for name, _ in attrs if name.startswith("on") or name in ("src",)]
        self.acting += [str(v) for _, v in attrs if v and "javascript:" in v]


def inert(path: Path, scripts: int) -> str:
    """A page with as many scripts as it is to have, and nothing that a record brought along."""
    text = path.read_text(encoding="utf-8")
    tags = Tags(text)
    assert tags.names.count("script") == scripts
    assert not {"img", "svg/onload", "iframe", "object", "link"} & {*tags.names}
    assert tags.acting == []
    assert RAW.findall(text) == []
    return text


def calm(path: Path) -> list[dict[str, str]]:
    """A CSV with no cell that a spreadsheet runs or a terminal obeys."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file, strict=True)]
    for row in rows:
        for cell in row.values():
            assert not cell.startswith(FORMULA), cell[:20]
            assert not set(cell) & {"\x1b", "\x00", "\x9b", "\x07"}
    return rows


def test_the_worst_records_do_no_harm_anywhere(tmp_path: Path, told: Told) -> None:
    kinds = [text for text in WORST for _ in range(6)]
    cards = " 4111 1111 1111 1111"
    texts = [f"{text} {SECRET} {i}{cards * (i % 3 == 0)}" for i, text in enumerate(kinds)]
    texts += sentences(60)
    n = len(texts)
    table = {
        "id": [f"{WORST[i % len(WORST)][:60]} {i}" for i in range(n)],
        "text": texts,
        "group": [WORST[i % len(WORST)][:60] for i in range(n)],
        "author": [WORST[i % len(WORST)][:60] + str(i % 7) for i in range(n)],
        "created_at": [f"2026-01-{1 + i % 28:02d}T00:00:00" for i in range(n)],
    }
    dump, out, policy = tmp_path / "dump.parquet", tmp_path / "out", tmp_path / "policy.toml"
    pq.write_table(pa.table(table), dump)
    policy.write_text(POLICY)
    same = ("--policy", policy)

    # A run, and what it prints.
    told("inspect", dump)
    told("triage", dump, "-o", out, *same, "--model", "none", "--workers", 1)
    decisions = pq.read_table(out / "decisions").to_pylist()
    assert {row["verdict"] for row in decisions} >= {"flag", "review"}
    for path in (*(out / "decisions").iterdir(), out / "report.json", out / "run.json"):
        assert SECRET.encode() not in path.read_bytes()

    # The queue as a page, as rows, as a sample.
    told("review", "export", out, "--format", "html", *same, "--no-alike")
    page = inert(out / "review-open.html", 3)
    assert "w" * 30_000 in page
    assert "{{7*7}}" in page
    told("review", "export", out, "--format", "csv", *same)
    waiting = calm(out / "review-open.csv")
    told("audit", "sample", out, "-n", 60, "--format", "csv", "-o", tmp_path / "sample", *same)
    (sample,) = (tmp_path / "sample").glob("*.csv")
    calm(sample)

    # Answers, conflicts, appeals, stats.
    rows: list[dict[str, Any]] = [
        {"source": row["source"], "source_row": int(row["source_row"]), "reviewer": who,
         "record_id": decisions[int(row["source_row"])]["record_id"],
         "answer": answer, "answer_category": "toxic", "note": WORST[i % len(WORST)]}
        for i, row in enumerate(waiting[:20])
        for who, answer in (("anna", "flag"), ("ben", ("flag", "clear")[i % 2]))
    ]  # fmt: skip
    flagged = [row["record_id"] for row in decisions if row["verdict"] == "flag"]
    rows += [{"record_id": name, "appeal": ("upheld", "overturned")[i % 2], "reviewer": "board",
              "note": WORST[i % len(WORST)], "policy": WORST[i % len(WORST)]}
             for i, name in enumerate(flagged)]  # fmt: skip
    rows.append({"record_id": WORST[0], "answer": WORST[1], "reviewer": WORST[2]})
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = told("review", "import", answers, "--run", out, *same)
    assert f"{len(flagged):,} outcomes of appeals" in said
    assert "10 in conflict" in said
    assert len(calm(out / "labels-conflicts.csv")) == 20
    assert "decisions" in told("review", "stats", out, *same)

    # Trends without a mask, and the page of the run.
    found = tmp_path / "found"
    shown = told("trends", out, "--by", "group", "--author-column", "author", *same,
                 "--show", "-o", found)  # fmt: skip
    assert "Campaigns" in shown
    told("report", out, "--html", "--by", "group", "--over-time", *same,
         "--trends", found / "trends.json")  # fmt: skip
    page = inert(out / "report.html", 0)
    assert "What emerges" in page
    assert SECRET not in page

    # What one decision rests on, and the statement about it.
    for row in decisions[: 6 * len(WORST) : 6]:
        assert "why: " in told("explain", out, row["record_id"], *same, "--model", "none")
        told("explain", out, row["record_id"], *same, "--model", "none", "--notice")

    # Tables for the public.
    public = tmp_path / "public"
    told("report", out, "--transparency", "-o", public, "--by", "group", *same)
    for path in public.glob("*.csv"):
        calm(path)
    for line in (public / "statements.jsonl").read_text().splitlines():
        assert RAW.findall(line) == []
        assert SECRET not in line
        assert json.loads(line)["puid"] is None
