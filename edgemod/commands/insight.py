"""For analysts: ``trends``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgemod.commands.options import with_key


@click.command()
@with_key
@click.argument("run", type=click.Path(path_type=Path, file_okay=False), metavar="OUT")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write trends.json, and findings.parquet with the ids of all records, to a new folder.",
)
@click.option("--by", metavar="COLUMN", help="Column with the channel or community.")
@click.option(
    "--time-column", "time", metavar="NAME", help="Column with the time, if not the run's."
)
@click.option(
    "--author-column",
    "author",
    metavar="NAME",
    help="Column with the author's id, if not the run's.",
)
@click.option(
    "--windows",
    type=click.IntRange(2, 100),
    default=8,
    show_default=True,
    metavar="N",
    help="Windows of time that are compared, of equally many records.",
)
@click.option(
    "--policy", metavar="FILE", help="Whose lexicons are looked for. Default: the run's policy."
)
@click.option(
    "--max-records",
    "most_records",
    type=click.IntRange(1),
    default=2_000_000,
    show_default=True,
    metavar="N",
    help="Of a larger run look at a random share, to bound memory: 500 bytes a record.",
)
@click.option("--show", is_flag=True, help="Show and write terms and examples without a mask.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def trends(run: Path, out: Path | None, as_json: bool, **options: Any) -> None:
    """Find emerging patterns in the archive behind a complete run.

    Campaigns of nearly the same text and bursts of them, rising terms, shifts of the mix of
    categories over time and between communities, new spellings of lexicon terms. Each with counts,
    first seen, ids to look up, and how surprising it is. Terms and examples are masked. The input
    of the run must be unchanged.
    """
    from edgemod import trends as looking
    from edgemod.screen import trends as screen

    found = looking.trends(run, out, **options)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        screen.trends(found, out)
