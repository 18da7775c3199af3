from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

import licences
import make_docs
import model_card
from edgemod import transparency, words
from edgemod.cli import cli

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
