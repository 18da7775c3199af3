"""Nothing in data, names or policies can drive the terminal, or forge a line of output."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgemod import exits
from edgemod.cli import cli
from edgemod.errors import InputError
from edgemod.screen.console import printable

HOSTILE = "\x1b]0;owned\x07\x1b[31m\u202e\x9b2J\nedgemod: all is well"
"""A title for the window, red, right to left, a C1 escape that clears, and a line of its own."""

RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


Quiet = Callable[..., str]


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Quiet:
    """Runs a command in this process: both its outputs, in which nothing hostile is left."""

    def run(*arguments: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["edgemod", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            exits.run(cli)
        told = capsys.readouterr()
        both = told.out + told.err
        assert (ended.value.code or 0) == code, both
        assert RAW.findall(both) == []
        assert "\nedgemod: all is well" not in both
        return both

    return run


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a dump and a policy with the worst names there can be."""
    folder = tmp_path_factory.mktemp("hostile") / HOSTILE
    folder.mkdir()
    texts = [f"you worthless idiot {HOSTILE} {i}" for i in range(40)]
    table = pa.table(
        {
            "id": [HOSTILE + str(i) for i in range(40)],
            f"body{HOSTILE}": texts,
            "author": [HOSTILE] * 40,
            "group": [HOSTILE] * 40,
            "toxic": pa.array([i % 2 for i in range(40)], pa.int8()),
        }
    )
    pq.write_table(table, folder / "dump.parquet")
    bad = json.dumps(HOSTILE)
    (folder / "worst.toml").write_text(
        f"name = {bad}\nversion = {bad}\nlanguages = []\n"
        f"[category.toxic]\nseverity = 3\ndefinition = {bad}\n"
        f"[[rule]]\nname = {bad}\ncategory = {bad}\nverdict = {bad}\nwhen = [{bad}]\n"
        f"{bad} = 1\n"
    )
    (folder / "policy.toml").write_text(
        "name = 'n'\nversion = '1'\nlanguages = []\n"
        "[category.toxic]\nseverity = 3\ndefinition = 'd'\n"
        "[[rule]]\nname = 'all'\ncategory = 'toxic'\nverdict = 'review'\n"
        "when = ['words >= 1']\nreason = 'It is [bold]there[/bold].'\n"
        f"[[test]]\nname = 't'\ntext = {bad}\nverdict = 'clear'\nwhy = 'It [red]fails.'\n"
    )
    return folder


def test_commands_on_hostile_data(hostile: Path, quiet: Quiet) -> None:
    dump, policy = hostile / "dump.parquet", hostile / "policy.toml"
    options = ("--policy", policy, "--model", "none")
    column = ("--text-column", f"body{HOSTILE}")
    out = hostile / "out"
    assert r"\x1b]0;owned" in quiet("inspect", dump)
    assert "40 records" in quiet("triage", dump, "-o", out, *column, *options,
                                 "--review-format", "csv")  # fmt: skip
    assert r"\u202e" in quiet("explain", out, f"{HOSTILE}7", *options)
    assert "Your contribution" in quiet("explain", out, f"{HOSTILE}7", *options, "--notice")
    assert "It [red]fails." in quiet("policy", "test", policy, "--model", "none", code=1)
    assert "[bold]there[/bold]" in quiet("policy", "show", policy)
    assert "1 problem" not in quiet("policy", "check", hostile / "worst.toml", code=1)
    assert "owned" in quiet("evaluate", dump, *column, *options, "--by", "group",
                            "--bootstrap", "1")  # fmt: skip
    with (out / "review" / "review.csv").open(encoding="utf-8", newline="") as stream:
        rows = [*csv.DictReader(stream)]
    assert len(rows) == 40
    assert not any("\x1b" in cell for row in rows for cell in row.values())


def test_errors_about_hostile_names(hostile: Path, quiet: Quiet) -> None:
    assert r"\x1b" in quiet("inspect", hostile / f"gone{HOSTILE}.parquet", code=1)
    assert r"\x1b" in quiet("score", hostile / "dump.parquet", code=2)
    assert r"\x1b" in quiet("triage", hostile / "dump.parquet", "-o", hostile / "o",
                            "--text-column", HOSTILE, code=1)  # fmt: skip
    assert r"\x1b" in quiet(HOSTILE, code=2)
    assert r"\x1b" in quiet("policy", "check", hostile / "dump.parquet", code=1)


def test_a_mistake_of_edgemod_is_told_without_harm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError(HOSTILE)

    monkeypatch.setattr(cli, "main", broken)
    with pytest.raises(SystemExit) as ended:
        exits.run(cli)
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert r"\x1b]0;owned" in told
    assert RAW.findall(told) == []


def test_a_line_feed_in_a_name_makes_no_line() -> None:
    assert str(InputError("is gone", where="a\nb", fix="Look.")) == "a\\nb: is gone\n  Look."
    assert printable("a\nb") == "a\\nb"
    assert printable("a\nb\r", lines=True) == "a\nb\\r"
