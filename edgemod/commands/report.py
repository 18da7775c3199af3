"""Finished runs for people who decide about them and for the public: ``report``."""

from __future__ import annotations

from pathlib import Path

import click

from edgemod.commands.options import with_key, with_policy_of_run


@click.command()
@with_key
@click.argument("run", type=click.Path(path_type=Path, file_okay=False), metavar="OUT")
@click.option("--html", "page", is_flag=True, help="Write one page to look at, or to print.")
@click.option(
    "--transparency", is_flag=True, help="Write the tables of transparency reports to a folder."
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The page (default: report.html in OUT), or the new folder for the tables.",
)
@click.option("--by", metavar="COLUMN", help="Tell apart the groups of this column of the input.")
@click.option("--over-time", "times", is_flag=True, help="Read the run's time column, too.")
@click.option(
    "--labels",
    metavar="FILE",
    help="With --html: labels of some records, by id: how much of it is right.",
)
@click.option(
    "--trends",
    metavar="FILE",
    help="With --html: the trends.json of 'edgemod trends', to show what emerges, masked.",
)
@click.option(
    "--audit",
    metavar="FILE",
    help="With --transparency: a labelled sample of 'edgemod audit sample', for error rates.",
)
@click.option("--service", default="", metavar="NAME", help="With --transparency: the service.")
@click.option(
    "--period",
    default="",
    metavar="FROM/TO",
    help="With --transparency: 2026-01-01/2026-06-30, say.",
)
@click.option("--ids", is_flag=True, help="With --transparency: pseudonyms in the statements.")
@click.option(
    "--pace",
    type=click.IntRange(1),
    default=120,
    show_default=True,
    metavar="N",
    help="Records that one reviewer reads in an hour.",
)
@with_policy_of_run
def report(
    run: Path,
    page: bool,
    transparency: bool,
    out: Path | None,
    by: str | None,
    times: bool,
    labels: str | None,
    trends: str | None,
    audit: str | None,
    service: str,
    period: str,
    ids: bool,
    pace: int,
    policy: str | None,
) -> None:
    """Show a finished run to people: what came in, what was decided by what, what lies ahead.

    Reads the numbers and decisions in OUT, no text; with --by and --over-time one column each of
    the input, which must be unchanged. The page needs no network and no script.
    """
    from edgemod.screen.console import printable

    if page == transparency:
        raise click.UsageError("say what to write: --html, or --transparency")
    if transparency:
        from edgemod import transparency as tables

        if out is None:
            raise click.UsageError("--transparency needs -o FOLDER")
        names = tables.write(
            run, out, by=by, times=times, labels=audit, policy=policy,
            service=service, period=period, ids=ids,
        )  # fmt: skip
        click.echo(f"written to {printable(str(out))}: {', '.join(names)}", err=True)
        return
    from edgemod import report_page

    out = out or run / "report.html"
    report_page.write(
        run, out, by=by, times=times, labels=labels, trends=trends, policy=policy, pace=pace
    )
    click.echo(f"written: {printable(str(out))}", err=True)
