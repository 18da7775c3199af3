"""Deciding records: ``triage`` and ``score``; ``inspect`` before it."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edgemod import exits
from edgemod.commands.options import (
    grouped,
    with_key,
    with_models,
    with_stall,
    with_text,
    with_workers,
)
from edgemod.errors import OutputError
from edgemod.words import counted

if TYPE_CHECKING:
    from edgemod.pipeline import Plan


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="OUT",
    help="Folder for decisions, review queue and report; one run each.",
)
@grouped(
    with_text,
    click.option(
        "--conversation-column",
        "conversation",
        metavar="NAME",
        help="Column that holds a list of messages (role, content) instead of a text.",
    ),
    click.option("--id-column", "id", metavar="NAME", help="Column with the record's id."),
    click.option("--thread-column", "thread", metavar="NAME", help="Column with the thread's id."),
    click.option("--author-column", "author", metavar="NAME", help="Column with the author's id."),
    click.option("--time-column", "time", metavar="NAME", help="Column with the time."),
    click.option(
        "--context-column",
        "context",
        metavar="NAME",
        help="Column with what the record answers to.",
    ),
    with_models,
    with_workers,
    click.option(
        "--max-memory",
        metavar="SIZE",
        help="Lower the number of workers so that all is expected to fit: 4GB, say.",
    ),
    with_stall,
)
@click.option(
    "--overlay",
    metavar="NAME",
    help="Put this overlay of the policy in force: stricter settings for a crisis.",
)
@click.option(
    "--chunk-rows",
    type=click.IntRange(1, 1 << 20),
    default=4096,
    show_default=True,
    metavar="N",
    help="Records a chunk; duplicates are collapsed within a chunk.",
)
@click.option(
    "--review-format",
    type=click.Choice(["parquet", "csv", "jsonl", "label-studio"]),
    default="parquet",
    show_default=True,
    help="Format of the review queue.",
)
@click.option(
    "--review-budget",
    type=click.IntRange(0),
    metavar="N",
    help="Export at most N records for review; the report counts what stays behind.",
)
@click.option(
    "--keep-scores",
    is_flag=True,
    help="Keep the scores of both stages in OUT/scores, to try other policies on the run soon.",
)
@click.option(
    "--pseudonymise",
    metavar="KEYFILE",
    help="Pseudonyms for ids of records, authors and threads, under the key in this file.",
)
@click.option(
    "--redact-pii",
    is_flag=True,
    help="In the review queue, [email], [phone] ... for the personal data that is found.",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Do share I (from 1) of N only; 'edgemod merge' puts the shares together.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where the workers run: on this machine, or on a Ray cluster (extra 'ray').",
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="The cluster. Default: RAY_ADDRESS, else the one that this machine is in, else none.",
)
@click.option("--restart", is_flag=True, help="Throw away an earlier run in OUT and begin anew.")
@click.option("--dry-run", is_flag=True, help="Print the resolved plan as JSON and stop.")
@with_key
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "bar", "json", "none"]),
    default="auto",
    show_default=True,
    help="auto: a bar on a terminal, else nothing. json: one line a chunk on stderr.",
)
def triage(
    inputs: tuple[str, ...],
    out: Path,
    model: str,
    dry_run: bool,
    as_json: bool,
    progress: str,
    workers: int | None,
    max_memory: str | None,
    restart: bool,
    **options: Any,
) -> None:
    """Decide every record of INPUT...: clear, flag or review.

    INPUT is a Parquet, CSV or JSONL file, a folder of them (partitioned or not) or a glob.
    OUT receives decisions/ (one row a record, no text), review/ (the records for people, with
    text), report.json and run.json. The same command goes on with an interrupted run.
    """
    from edgemod import pipeline, run_folder
    from edgemod.screen import run as screen
    from edgemod.screen.console import printable
    from edgemod.screen.progress import progress as shown_progress

    chosen = None if model == "none" else model
    if dry_run:
        columns = {
            name: options.pop(name)
            for name in ("text", "conversation", "id", "thread", "author", "time", "context")
        }
        resolved = pipeline.plan(
            pipeline.Options(
                inputs=inputs,
                out=out,
                model=chosen,
                columns=columns,
                workers=workers,
                max_memory=max_memory,
                **options,
            ),
            restart=restart,
        )
        click.echo(json.dumps(resolved.to_json(), indent=2))
        return

    shown = "bar" if progress == "auto" and sys.stderr.isatty() else progress

    def tell(plan: Plan) -> None:
        for notice in plan.columns.notices:
            click.echo(printable(notice), err=True)

    finished = not restart and run_folder.is_complete(out)
    try:
        with shown_progress(shown) as on_progress:
            report = pipeline.triage(
                inputs,
                out,
                model=chosen,
                workers=workers,
                max_memory=max_memory,
                restart=restart,
                on_plan=tell,
                on_progress=on_progress,
                **options,
            )
    except KeyboardInterrupt:
        click.echo("what is done is kept: run the same command again to go on", err=True)
        raise
    except BrokenPipeError as error:  # not an exit 0: the run is not done
        raise OutputError(
            "nobody reads the progress any more, so the run was stopped",
            fix="run the same command again to go on",
        ) from error
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    if finished:
        click.echo("nothing to do: this run was complete. What it reported:", err=True)
    screen.summary(report, out)


@click.command()
@click.argument(
    "shards", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SHARD..."
)
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="OUT",
    help="Folder for decisions, review queue and report of the whole run.",
)
@click.option("--restart", is_flag=True, help="Throw away an earlier run in OUT and begin anew.")
@with_key
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
def merge(shards: tuple[Path, ...], out: Path, restart: bool, as_json: bool) -> None:
    """Put the shards of a run together: what 'triage' without --shard would have written.

    SHARD is the OUT of 'triage --shard I/N'; all N are needed, in any order. The queue is ranked,
    and a review budget applied, over all of them. The same command goes on after a kill.
    """
    from edgemod import merging
    from edgemod.screen import run as screen

    report = merging.merge(shards, out, restart=restart)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    screen.summary(report, out)


@click.command()
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT")
@click.option("--head", metavar="HEX", help="The head of the chain that was noted earlier.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON on stdout.")
def verify(out: Path, head: str | None, as_json: bool) -> None:
    """Check that decisions and review queue of a finished run are as it wrote them.

    Reads their files again, and kept scores, names those that were altered, are missing or were
    added, and exits 3 if there are any. Prints the head of the chain over the decisions.
    Note it elsewhere: a chain inside OUT proves nothing against somebody who rewrites all of it.
    """
    from edgemod import verifying
    from edgemod.screen.console import printable

    found = verifying.verify(out, head=head)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        for how in ("altered", "missing", "added"):
            for name in getattr(found, how):
                click.echo(f"{how}: {printable(name)}")
        if not found.noted:
            click.echo("the head is not the one given: these are not the decisions it was noted of")
        click.echo(f"checked {counted(found.checked, 'file')}", nl=False)
        click.echo(": all are as the run wrote them" if found.sound else "")
        click.echo(f"head {found.head}")
    if not found.sound:
        sys.exit(exits.DIFFERENT)


@click.command()
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "--file",
    "lines",
    type=click.File("r", encoding="utf-8", errors="surrogateescape"),
    metavar="FILE",
    help="Score each line of a text file ('-' for stdin).",
)
@with_text
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With IN.parquet: write its rows and a column p_<category> each to FILE.",
)
@click.option(
    "--stage",
    type=click.Choice(["filter", "model", "cascade"]),
    help="With -o (default: cascade) or --attributes (default: model): whose probabilities.",
)
@click.option(
    "--attributes",
    type=click.Choice(["perspective"]),
    help="Answer with the attributes of the Perspective API, in the shape of its responses.",
)
@with_models
@with_workers
@with_stall
@with_key
@click.option("--json", "as_json", is_flag=True, help="JSON lines even on a terminal.")
def score(
    texts: tuple[str, ...],
    lines: Any,
    text: tuple[str, ...],
    out: Path | None,
    stage: Literal["filter", "model", "cascade"] | None,
    attributes: str | None,
    policy: str | None,
    model: str,
    calibration: str | None,
    workers: int | None,
    stall_seconds: float,
    as_json: bool,
) -> None:
    """Score texts: from arguments, a file or stdin; or a whole Parquet file with -o.

    Shows what was decided, by which stage and why, what fired (as offsets into the text), and
    the probability of every category. Prints JSON lines where stdout is not a terminal. With -o
    worker processes score the rows, and a record that ends or hangs them has no probabilities.
    """
    from edgemod import machine, measuring, perspective, scoring
    from edgemod.screen import run as screen
    from edgemod.screen.console import printable
    from edgemod.triager import Triager

    chosen = None if model == "none" else model
    if attributes is not None and out is not None:
        raise click.UsageError("--attributes prints JSON lines: it has no -o")
    if out is not None:
        if len(texts) != 1 or lines is not None:
            raise click.UsageError("-o needs exactly one input file: IN.parquet -o OUT.parquet")
        done = scoring.score_file(
            Path(texts[0]),
            out,
            text=text,
            stage=stage or "cascade",
            policy=policy,
            model=chosen,
            calibration=calibration,
            workers=machine.workers(workers, None, chosen if stage != "filter" else None),
            stall_seconds=stall_seconds,
        )
        for notice in done.notices:
            click.echo(printable(notice), err=True)
        if done.unreadable:
            click.echo(f"rows that could not be read, and are null: {done.unreadable:,}", err=True)
        if done.quarantined:
            click.echo(printable(measuring.told([*done.quarantined])), err=True)
        click.echo(f"{counted(done.rows, 'row')} written to {printable(str(out))}", err=True)
        return
    if len(texts) == 1 and (texts[0] == "-" or _is_file(texts[0])):
        raise click.UsageError(
            f"{texts[0]} names a file: give --file for its lines, or -o for a Parquet file"
        )
    if len(texts) == 1 and _names_data(texts[0]):
        raise click.UsageError(f"{texts[0]} reads as the name of a file, and there is none")
    if text:
        raise click.UsageError("--text-column goes with a Parquet file and -o")
    if lines is None and not texts:
        if sys.stdin.isatty():
            raise click.UsageError("give texts as arguments, --file FILE, or pipe them in")
        lines = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="surrogateescape")
    given = itertools.chain(texts, (line.rstrip("\r\n") for line in lines or ()))
    first = 0
    with Triager(policy, chosen, calibration=calibration) as triager:
        while batch := list(itertools.islice(given, 1024)):
            if attributes is not None:
                of = stage or ("filter" if chosen is None else "model")
                for response in perspective.analyze(batch, triager=triager, stage=of):
                    click.echo(json.dumps(response))
                first += len(batch)
                continue
            answers = scoring.score(batch, triager=triager)
            if as_json or not sys.stdout.isatty():
                rows = ({"text": i, **dataclasses.asdict(a)} for i, a in enumerate(answers, first))
                click.echo("\n".join(map(json.dumps, rows)))
            else:
                screen.scores(answers, first)
            first += len(batch)
    if not first:
        click.echo("there was no text: nothing was scored", err=True)


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE_OR_FOLDER")
@with_key
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def inspect(file: Path, as_json: bool) -> None:
    """Show what is in a dump, which columns look like what, and the command to triage it.

    Of a folder, or a glob in quotes, all files together; the columns are those of the first.
    """
    from edgemod import inspection
    from edgemod.screen import run as screen

    found = inspection.inspect(file)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=2, default=str))
    else:
        screen.inspection(found)


def _names_data(text: str) -> bool:
    from edgemod.sources import SUFFIXES

    return not any(map(str.isspace, text)) and text.lower().endswith(tuple(SUFFIXES))


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or with a NUL: a text
        return False
