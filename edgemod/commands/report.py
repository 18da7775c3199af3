"""Finished runs for people who decide about them and for the public: ``report``."""

from __future__ import annotations

from pathlib import Path

import click

from edgemod.commands.options import with_policy


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False), metavar="OUT")
@click.option("--html", "page", is_flag=True, help="Write one page to look at, or to print.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to. Default: report.html in OUT.",
)
@click.option("--by", metavar="COLUMN", help="Tell apart the groups of this column of the input.")
@click.option("--over-time", "times", is_flag=True, help="Read the run's time column, too.")
@click.option(
    "--labels",
    metavar="FILE",
    help="Labels of some records of the run, by id: how much of it is right.",
)
@click.option(
    "--pace",
    type=click.IntRange(1),
    default=120,
    show_default=True,
    metavar="N",
    help="Records that one reviewer reads in an hour.",
)
@with_policy
def report(
    run: Path,
    page: bool,
    out: Path | None,
    by: str | None,
    times: bool,
    labels: str | None,
    pace: int,
    policy: str | None,
) -> None:
    """Show a finished run to people: what came in, what was decided by what, what lies ahead.

    Reads the numbers and decisions in OUT, no text; with --by and --over-time one column each of
    the input, which must be unchanged. The page needs no network and no script.
    """
    from edgemod import report_page
    from edgemod.screen.console import printable

    if not page:
        raise click.UsageError("say what to write: --html")
    out = out or run / "report.html"
    report_page.write(run, out, by=by, times=times, labels=labels, policy=policy, pace=pace)
    click.echo(f"written: {printable(str(out))}", err=True)
