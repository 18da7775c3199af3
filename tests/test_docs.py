from __future__ import annotations

import re
import shutil
from pathlib import Path

import click
import pytest

import licences
import make_docs
import model_card
from edgemod import rehearsal, transparency, words
from edgemod.cli import cli
from edgemod.policy import DEFAULT_POLICY
from edgemod.triager import Triager
from test_cli import run

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "quantized" / "MODEL_CARD.md", *(ROOT / "docs").glob("*.md")]
)


def test_command_page_is_what_help_says() -> None:
    assert make_docs.PAGE.read_text() == make_docs.page(), "run: make docs"


def test_every_option_has_help() -> None:
    for name, command in make_docs._commands("edgemod", cli):
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts[0]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_feature_is_in_the_policy_page() -> None:
    text = (ROOT / "docs" / "policy.md").read_text()
    assert [name for name in words.FEATURES if f"`{name}`" not in text] == []


def test_examples_of_the_policy_page_pass_their_checks_and_tests(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "policy.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    whole = [block for block in blocks if block.startswith("name = ")]
    cases = [block for block in blocks if block.startswith("[[test]]")]
    overlays = [block for block in blocks if block.startswith("[overlay.")]
    assert len(whole) + len(cases) + len(overlays) == len(blocks)
    lists = tmp_path / "lists"  # those that the example names
    lists.mkdir()
    (lists / "own_terms.txt").write_text("grue\n")
    (lists / "own_allowed.txt").write_text("grue of the month\n")
    shutil.copytree(DEFAULT_POLICY.parent / "lexicons", tmp_path / "lexicons")
    (tmp_path / "whole.toml").write_text("\n".join([*whole, *cases]))
    (tmp_path / "overlaid.toml").write_text("\n".join([DEFAULT_POLICY.read_text(), *overlays]))
    for name, overlay in (("whole", None), ("overlaid", "attack")):
        path = tmp_path / f"{name}.toml"
        assert run("policy", "check", path).returncode == 0
        with Triager(path, overlay=overlay) as triager:
            outcomes = rehearsal.run_tests(triager)
        assert outcomes
        assert [one.name for one in outcomes if not one.passed] == []


def test_every_module_is_in_the_architecture_page() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    modules = [p.name for p in (ROOT / "edgemod").glob("*.py") if not p.name.startswith("__")]
    assert [name for name in modules if f"`{name}`" not in text] == []


def test_table_of_licences_is_what_is_installed() -> None:
    text = licences.PAGE.read_text()
    rows = re.findall(r"^\| (\S+) \| edgemod \| (.+) \|$", text, re.MULTILINE)
    assert [name for name, _ in rows] == licences.declared(), "run: make docs"
    assert dict(rows) == {name: licences.licence(name) for name in licences.declared()}
    assert not any("not stated" in licence for _, licence in rows)


def test_model_card_is_of_what_ships() -> None:
    assert model_card.PAGE.read_text() == model_card.page(), "run: make docs"


def test_every_training_set_has_a_licence() -> None:
    sets = model_card.training_sets()
    assert len(sets) > 20
    assert all(len(row) == 6 and row[4] for row in sets)


def test_map_to_the_transparency_database_is_in_the_page() -> None:
    text = (ROOT / "docs" / "reporting.md").read_text()
    assert [x for x in {*transparency.CATEGORY.values()} if f"`{x}`" not in text] == []
