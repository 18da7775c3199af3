"""``review``: people at the queue. serve, export, import and stats."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from edgemod.commands.options import grouped, with_key, with_policy_of_run
from edgemod.words import counted

_SEVERITIES = 5
_ALL = 1 << 62  # records


@click.group()
def review() -> None:
    """Let people answer the review queue, and use what they say."""


_out = click.argument("out", type=click.Path(path_type=Path, file_okay=False), metavar="OUT")
_answers = click.option(
    "--answers",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where answers are kept. Default: answers.sqlite in OUT.",
)
_first = click.option(
    "--first",
    type=click.IntRange(1),
    default=20_000,
    show_default=True,
    metavar="N",
    help="Only the N most urgent records of the queue.",
)


def _caps(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[int, int]:
    """SEVERITY=N, any number of times."""
    found: dict[int, int] = {}
    for one in given:
        severity, _, most = one.partition("=")
        if not (severity.isdecimal() and most.isdecimal() and 1 <= int(severity) <= _SEVERITIES):
            raise click.BadParameter(f"{one!r} is not SEVERITY=N, with a severity of 1 to 5")
        found[int(severity)] = int(most)
    return found


_care = grouped(
    click.option(
        "--mask",
        type=click.Choice(["text", "words", "none"]),
        default="text",
        show_default=True,
        help="Hide until asked for: the text; only its words that fired; nothing.",
    ),
    click.option(
        "--cap",
        "caps",
        multiple=True,
        default=("5=20", "4=60"),
        show_default=True,
        callback=_caps,
        metavar="SEVERITY=N",
        help="Texts of a severity that a reviewer sees in one session; repeat.",
    ),
    click.option(
        "--gap",
        "gaps",
        multiple=True,
        default=("5=3", "4=2"),
        show_default=True,
        callback=_caps,
        metavar="SEVERITY=N",
        help="Milder records between a severe one and the next of this severity; repeat.",
    ),
    click.option(
        "--pause",
        "pause_minutes",
        type=click.FloatRange(1),
        default=60,
        show_default=True,
        metavar="MINUTES",
        help="A pause of so long ends a session: caps are counted anew.",
    ),
    click.option(
        "--break",
        "break_minutes",
        type=click.FloatRange(0),
        default=25,
        show_default=True,
        metavar="MINUTES",
        help="Remind of a break after so long; 0 for never.",
    ),
    click.option(
        "--without",
        multiple=True,
        metavar="CATEGORY",
        help="Show no records of this category; repeat.",
    ),
    click.option(
        "--alike/--no-alike",
        default=True,
        show_default=True,
        help="Show texts that are alike once, and decide them together.",
    ),
    click.option(
        "--blind",
        is_flag=True,
        help="Do not show what the models think. Always so for a sample of 'audit sample'.",
    ),
)


def _care_of(options: dict[str, Any]) -> Any:
    from edgemod.reviewing.desk import Care
    from edgemod.words import CATEGORIES

    if strange := {*options["without"]} - {*CATEGORIES}:
        raise click.UsageError(f"--without {min(strange)}: categories are {', '.join(CATEGORIES)}")
    names = ("mask", "caps", "gaps", "pause_minutes", "break_minutes", "alike")
    return Care(without=frozenset(options["without"]), **{name: options[name] for name in names})


def _reviewers(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> list[str]:
    from edgemod.reviewing.answers import REVIEWER

    for one in given:
        if not REVIEWER.fullmatch(one):
            raise click.BadParameter("a reviewer is 1 to 40 letters, digits, '.', '_' and '-'")
    return [*dict.fromkeys(given)]


def _reviewer(context: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    return None if given is None else _reviewers(context, parameter, (given,))[0]


@review.command("serve")
@with_key
@_out
@click.option(
    "--reviewer",
    "reviewers",
    multiple=True,
    callback=_reviewers,
    metavar="ID",
    help="A pseudonym, not a name; repeat for several, each with an address of its own. Default: "
    "one that stays the same for your account on this machine.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Port on 127.0.0.1. Default: any that is free.",
)
@click.option(
    "--only",
    type=click.Choice(["open", "escalated", "conflicts"]),
    default="open",
    show_default=True,
    help="What is open; or what was escalated, or answered in two ways, to settle it.",
)
@click.option(
    "--double",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    metavar="SHARE",
    help="Share of the records that two reviewers answer, drawn by chance.",
)
@_care
@_first
@_answers
@with_policy_of_run
def review_serve(
    out: Path,
    reviewers: list[str],
    port: int,
    only: Any,
    double: float,
    first: int,
    answers: Path | None,
    policy: str | None,
    **options: Any,
) -> None:
    """Open the queue of a run as a page in a browser of this machine.

    OUT is the folder of a complete run, or a sample of 'audit sample'. The page is served on the
    loopback address alone, under an address that cannot be guessed, and loads nothing from outside.
    Answers are kept at once, and the same command goes on where it was left. Ctrl-C ends it.
    """
    from edgemod import offline
    from edgemod.reviewing.answers import Answers
    from edgemod.reviewing.desk import Desk, Serving
    from edgemod.reviewing.queue import open_queue
    from edgemod.reviewing.serve import Server
    from edgemod.screen.console import printable

    care = _care_of(options)
    server = Server(port)
    offline.guard()
    queue = open_queue(out, policy, first)
    with Answers.open(answers or out / "answers.sqlite", queue.about) as kept:
        desk = Desk(queue, kept, care, Serving(only=only, double=double, blind=options["blind"]))
        addresses = server.attend(desk, reviewers or [kept.own_pseudonym()])
        click.echo(
            f"{len(desk.units):,} to decide, {counted(queue.table.num_rows, 'record')} of "
            f"{queue.total:,}; answers in {printable(str(kept.path))}",
            err=True,
        )
        click.echo(
            "open in a browser of this machine; who has the address is the reviewer:", err=True
        )
        for name, address in addresses.items():
            click.echo(f"{name}  {address}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("closed; every answer is kept", err=True)
        finally:
            server.server_close()
            for name in addresses:
                kept.release(name)


@review.command("export")
@with_key
@_out
@click.option(
    "--format",
    type=click.Choice(["html", "label-studio", "csv", "jsonl", "parquet"]),
    required=True,
    help="A page that needs no server, tasks of Label Studio, or rows with columns to fill in.",
)
@click.option(
    "-o",
    "--out",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where to. Default: review-open.html, .json, .csv, ... in OUT.",
)
@click.option("--reviewer", callback=_reviewer, metavar="ID", help="With html: who answers.")
@_care
@click.option(
    "--first",
    type=click.IntRange(1),
    metavar="N",
    help="Only the N most urgent records. Default: 1000 in a page, else all.",
)
@_answers
@with_policy_of_run
def review_export(
    out: Path,
    format: str,
    file: Path | None,
    reviewer: str | None,
    first: int | None,
    answers: Path | None,
    policy: str | None,
    **options: Any,
) -> None:
    """Write the records that nobody has answered to a file, with their texts.

    The page is one file for any browser, works without a network and a server, keeps answers in the
    browser and saves them as JSONL. What people answer anywhere comes back with 'review import'.
    """
    from edgemod import encryption
    from edgemod.review import REVIEW
    from edgemod.reviewing import export
    from edgemod.reviewing.answers import Answers
    from edgemod.reviewing.queue import open_queue
    from edgemod.screen.console import printable

    encryption.check_format(format, "--format")
    care = _care_of(options)
    page = format == "html"
    queue = open_queue(out, policy, first or (1000 if page else _ALL), REVIEW.names if page else ())
    file = file or export.suggested(out, format)
    with Answers.open(answers or out / "answers.sqlite", queue.about) as kept:
        kept.note_policy(queue.policy)  # answers to what is exported are given by it
        answered = {one.key for one in kept.standing()}
    count, names = export.export(
        queue, answered, file, format, care=care, blind=options["blind"], reviewer=reviewer or ""
    )
    paths = ", ".join(printable(str(file.parent / name)) for name in names)
    click.echo(f"{counted(count, 'record')} written to {paths}", err=True)


@review.command("import")
@with_key
@click.argument(
    "decisions", nargs=-1, type=click.Path(path_type=Path, dir_okay=False), metavar="[DECISIONS]..."
)
@click.option(
    "--run",
    "out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="OUT",
    help="The run, or the sample, whose records were answered.",
)
@click.option(
    "-o",
    "--out",
    "labels",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The labels, with text, as Parquet. Default: labels.parquet in OUT.",
)
@click.option(
    "--reviewer",
    callback=_reviewer,
    metavar="ID",
    help="Who answered, where the files do not say.",
)
@click.option(
    "--pseudonymise",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="KEYFILE",
    help="Of a run with pseudonyms: the files call records as its input does.",
)
@_answers
@with_policy_of_run
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a summary.")
def review_import(
    decisions: tuple[Path, ...],
    out: Path,
    labels: Path | None,
    reviewer: str | None,
    pseudonymise: Path | None,
    answers: Path | None,
    policy: str | None,
    as_json: bool,
) -> None:
    """Add answers from files to those of a run, and write the labels of all of them.

    DECISIONS are JSONL (as the exported page saves them), CSV or Parquet (an export with the column
    'answer' filled in), or JSON of Label Studio. None: the labels of what was answered in the page.
    A file may be imported again. Records that reviewers answered differently have no label: they
    are listed, and written beside the labels. 'calibrate', 'evaluate' and 'audit report' read the
    labels. Rows with a column 'appeal', upheld or overturned, are outcomes of appeals against any
    decision of the run: their labels come into a file of their own, for 'learn'.
    """
    from edgemod.reviewing import labelling
    from edgemod.reviewing.answers import Answers
    from edgemod.reviewing.queue import open_queue
    from edgemod.screen import review as screen

    queue = open_queue(out, policy, _ALL, labelling.COLUMNS)
    with Answers.open(answers or out / "answers.sqlite", queue.about) as kept:
        done = labelling.import_answers(
            decisions,
            queue,
            kept,
            labels or out / "labels.parquet",
            reviewer,
            run=None if queue.sample else out,
            pseudonymise=pseudonymise,
        )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(done), indent=2))
    else:
        screen.imported(done, queue.total)


@review.command("stats")
@with_key
@_out
@_answers
@with_policy_of_run
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def review_stats(out: Path, answers: Path | None, policy: str | None, as_json: bool) -> None:
    """Show what the answers say of reviewers and of edgemod.

    Pace; agreement on records that two or more answered (Cohen's kappa, Krippendorff's alpha); what
    each reviewer flags as time goes on, beside what the models expect; how often people decide
    against what edgemod leaned to, by category, reason and probability; and how often appeals
    overturned a decision, by category, stage and reason. With 95 % intervals.
    """
    from edgemod.reviewing import stats
    from edgemod.reviewing.answers import Answers
    from edgemod.reviewing.queue import open_queue
    from edgemod.screen import review as screen

    queue = open_queue(out, policy, _ALL, stats.COLUMNS)
    with Answers.open(answers or out / "answers.sqlite", queue.about) as kept:
        found = stats.stats(queue, kept.standing(), kept.appeals(), None if queue.sample else out)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        screen.stats(found)
