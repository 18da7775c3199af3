"""The page of a run: what it counts, what it says where nothing is known, and that it is inert."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgemod
from edgemod import breakdown, report_page, run_folder
from edgemod.errors import InputError, RunError
from edgemod.pictures import flow, percent, safe
from samples import sentences
from test_cli import run

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of two inputs, one with a name and groups that would be markup, and its run."""
    folder = tmp_path_factory.mktemp("reported")
    data, out = folder / "in", folder / "out"
    data.mkdir()
    texts = sentences(900)
    for name, part, first in (("a <b>.parquet", texts[:500], 0), ("b.parquet", texts[500:], 500)):
        n = len(part)
        table = {
            "id": [f"r{first + i}" for i in range(n)],
            "text": part,
            "lang": [(EVIL, "en", None)[i % 3] for i in range(n)],
            "created_at": [f"2024-{1 + i % 12:02d}-03T10:00:00Z" if i % 5 else None
                           for i in range(n)],
            "many": [*range(n)],
        }  # fmt: skip
        pq.write_table(pa.table(table), data / name, row_group_size=70)
    edgemod.triage(data, out, model=None, workers=1, chunk_rows=128)
    return data, out


class Tags(HTMLParser):
    """Every tag and attribute of a page, and whether what opens is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(out: Path, to: Path, **options: Any) -> str:
    report_page.write(out, to, **options)
    return to.read_text()


def test_the_page_is_whole_inert_and_asks_for_nothing(finished: Any, tmp_path: Path) -> None:
    page = page_of(finished[1], tmp_path / "p.html", by="lang", times=True)
    tags = Tags(page)
    assert tags.open == []
    assert not {"script", "link", "img", "iframe", "object", "b>"} & {name for name, _ in tags.tags}
    for _, attributes in tags.tags:
        assert not [a for a in attributes if a.startswith("on") or a in ("src", "href")]
    assert "url(" not in page
    assert "@import" not in page
    assert EVIL not in page
    assert safe(EVIL) in page
    assert "a &lt;b&gt;.parquet" in page
    assert oct((tmp_path / "p.html").stat().st_mode)[-3:] == "600"


@given(st.text())
def test_nothing_in_a_name_is_markup_or_drives_the_reader(name: str) -> None:
    shown = safe(name)
    assert not set(shown) & set("<>\"'")
    assert all(c.isprintable() for c in shown)


def test_counts_are_those_of_the_decisions(finished: Any) -> None:
    data, out = finished
    state = run_folder.complete_state(out)
    rows = pq.read_table(out / "decisions").to_pylist()
    found = breakdown.count(out, state, by="lang", times=True)
    told = json.loads((out / "report.json").read_text())
    assert found.decided.total() == len(rows) == told["records"]
    assert {v: found.of(verdict=v) for v in told["verdicts"]} == told["verdicts"]
    assert {s: found.of(stage=s) for s in told["stages"]} == told["stages"]
    given = {r["id"]: r for r in pq.read_table(data).to_pylist()}
    for row in rows:
        lang = given[row["record_id"]]["lang"] or "(none)"
        found.groups[lang][row["verdict"], row["category"] or ""] -= 1
        if time := given[row["record_id"]]["created_at"]:
            found.days[time[:10]][row["verdict"]] -= 1
    assert not any(n for group in found.groups.values() for n in group.values())
    assert not any(n for day in found.days.values() for n in day.values())
    assert found.timeless == sum(r["created_at"] is None for r in given.values())
    assert f"{told['records']:,}" in page_of(out, out / "report.html")


@given(st.dictionaries(st.dates().map(str), st.integers(1, 9), max_size=20))
def test_periods_hold_every_day_in_order(days: dict[str, int]) -> None:
    found = breakdown.periods({day: Counter(clear=n) for day, n in days.items()})
    assert sum(of.total() for of in found.values()) == sum(days.values())
    assert [*found] == sorted(found)
    assert len(found) <= 100


def test_a_time_without_records_is_a_gap() -> None:
    days = {day: Counter(clear=1) for day in ("2024-02-28", "2024-03-01")}
    assert [*breakdown.periods(days)] == ["2024-02-28", "2024-02-29", "2024-03-01"]
    days["2023-11-05"] = Counter(flag=2)
    assert [*breakdown.periods(days)][:3] == ["2023-11", "2023-12", "2024-01"]
    assert not any(
        map(breakdown._is_date, ("", "2024-02-30", "20240101", "yesterday", "2024-W01-1"))
    )


def test_what_cannot_be_told_is_refused_or_said(finished: Any, tmp_path: Path) -> None:
    _, out = finished
    with pytest.raises(InputError, match="more than 100 values"):
        report_page.write(out, tmp_path / "p", by="many")
    with pytest.raises(InputError, match="no column 'colour'"):
        report_page.write(out, tmp_path / "p", by="colour")
    with pytest.raises(RunError, match="not the folder of a complete run"):
        report_page.write(tmp_path, tmp_path / "p")
    other = tmp_path / "other.toml"
    other.write_text('name = "x"\nversion = "1"\n[category.hate]\nseverity = 3\ndefinition = "d"\n')
    with pytest.raises(InputError, match="another policy"):
        report_page.write(out, tmp_path / "p", policy=other)
    page = page_of(out, tmp_path / "p.html")
    assert "No certificate: nothing is proved" in page
    assert "How much of it is right" not in page


def test_hours_are_records_over_the_pace(finished: Any, tmp_path: Path) -> None:
    waiting = json.loads((finished[1] / "report.json").read_text())["verdicts"]["review"]
    page = page_of(finished[1], tmp_path / "p.html", pace=40)
    assert f"<b>{waiting:,}</b>" in page
    assert f"<b>{waiting / 40:,.1f}</b>" in page
    assert "at 40 records an hour: an assumption" in page


def test_risk_of_labels_is_counted_by_hand(finished: Any, tmp_path: Path) -> None:
    _, out = finished
    state = run_folder.complete_state(out)
    rows = pq.read_table(out / "decisions").to_pylist()[::3]
    truth = [int(i % 4 == 0) for i in range(len(rows))]
    ids = [row["record_id"] for row in rows]
    path = tmp_path / "labels.parquet"
    pq.write_table(pa.table({"id": [*ids, "nobody", "r1"], "unsafe": [*truth, 1, None]}), path)
    found = breakdown.risk(out, state, path)
    assert (found.n, found.unknown) == (len(rows), 1)
    settled = [(r["verdict"], t) for r, t in zip(rows, truth, strict=True)
               if r["verdict"] != "review"]  # fmt: skip
    wrong = sum((v == "clear") == bool(t) for v, t in settled)
    assert found.risk is not None
    assert found.risk.value == pytest.approx(wrong / len(settled))
    assert found.risk.low < found.risk.value < found.risk.high
    x, y = np.array(found.curve).T
    assert (np.diff(x) > 0).all()
    assert x[-1] <= 1
    assert ((y >= 0) & (y <= 1)).all()
    page = page_of(out, tmp_path / "p.html", labels=path)
    assert f"From {len(rows):,} records that people labelled" in page
    every = pq.read_table(out / "decisions")["verdict"].to_pylist()
    counted = 1 - every.count("review") / len(every)  # known of all, whatever was labelled
    assert f'<td>settled without a person</td><td class="n">{percent(counted)}, counted' in page
    for column, why in (("hate", "labels of hate alone"), ("any", "none of its labels")):
        pq.write_table(pa.table({"id": ["x"], column: [1]}), path)
        with pytest.raises(InputError, match=why):
            breakdown.risk(out, state, path)


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(["filter", "model"]), st.sampled_from(breakdown.VERDICTS)),
        st.integers(1, 10**9),
    )
)
def test_a_flow_has_a_band_for_every_count_and_no_odd_number(flows: Any) -> None:
    drawn = flow(flows, 960, "wide")
    stages = {stage for stage, _ in flows}
    assert drawn.count("<path") == len(flows) + len(stages)
    assert not re.search(r"nan|inf\b|e[+-]\d", drawn)


def test_the_command_writes_into_the_run(finished: Any) -> None:
    _, out = finished
    done = run("report", out, "--html", "--by", "lang")
    assert done.returncode == 0, done.stderr
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert run("report", out).returncode == 2
