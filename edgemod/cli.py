"""The command line: arguments in, calls of the library out.

exits.py says how the process ends. Modules that are slow to import are imported inside the
commands, so that ``--help`` is instant.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from edgemod import __version__, exits
from edgemod.errors import OutputError

if TYPE_CHECKING:
    from edgemod.pipeline import Plan

F = TypeVar("F", bound=Callable[..., Any])


@click.group(
    cls=exits.Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="edgemod")
def cli() -> None:
    """Triage large dumps of comments, chats and conversations for moderation, offline.

    A fast filter settles the obvious records, a small quantized language model most of the
    rest, and only the ambiguous ones are exported for people to review. Nothing leaves this
    machine.
    """


# -- options several commands share ------------------------------------------------------------


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_with_policy = click.option(
    "--policy",
    metavar="FILE",
    help="Policy in TOML. Default: the one that ships with edgemod.",
)
_with_models = _options(
    _with_policy,
    click.option(
        "--model",
        metavar="NAME",
        default="default",
        show_default=True,
        help="Language model: a name from 'edgemod model list', or 'none' to do without.",
    ),
    click.option(
        "--calibration",
        metavar="FILE",
        help="Calibration in JSON. Default: the one that ships, from public data.",
    ),
)
_with_text = click.option(
    "--text-column",
    "text",
    metavar="NAME",
    multiple=True,
    help="Column that holds the text; repeat to join several. Default: guessed, with a notice.",
)
_with_workers = click.option(
    "--workers",
    type=click.IntRange(1, 512),
    metavar="N",
    help="Worker processes. Default: one for each usable core.",
)


# -- triage ------------------------------------------------------------------------------------


@cli.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="OUT",
    help="Folder for decisions, review queue and report; one run each.",
)
@_options(
    _with_text,
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
    _with_models,
    _with_workers,
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
@click.option("--restart", is_flag=True, help="Throw away an earlier run in OUT and begin anew.")
@click.option("--dry-run", is_flag=True, help="Print the resolved plan as JSON and stop.")
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
    restart: bool,
    **options: Any,
) -> None:
    """Decide every record of INPUT...: clear, flag or review.

    INPUT is a Parquet, CSV or JSONL file, a folder of them (partitioned or not) or a glob.
    OUT receives decisions/ (one row a record, no text), review/ (the records for people, with
    text), report.json and run.json. The same command goes on with an interrupted run.
    """
    from edgemod import pipeline, run_folder, screen

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
                workers=workers or pipeline.usable_cores(),
                **options,
            ),
            restart=restart,
        )
        click.echo(json.dumps(resolved.to_json(), indent=2))
        return

    shown = "bar" if progress == "auto" and sys.stderr.isatty() else progress

    def tell(plan: Plan) -> None:
        for notice in plan.columns.notices:
            click.echo(screen.printable(notice), err=True)

    finished = not restart and run_folder.is_complete(out)
    try:
        with screen.progress(shown) as on_progress:
            report = pipeline.triage(
                inputs,
                out,
                model=chosen,
                workers=workers,
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


# -- score -------------------------------------------------------------------------------------


@cli.command()
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "--file",
    "lines",
    type=click.File("r", encoding="utf-8", errors="surrogateescape"),
    metavar="FILE",
    help="Score each line of a text file ('-' for stdin).",
)
@_with_text
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
    default="cascade",
    show_default=True,
    help="With -o: whose probabilities to write.",
)
@_with_models
@click.option(
    "--workers",
    type=click.IntRange(1, 512),
    metavar="N",
    help="With -o: threads, each with its own models. Default: one for each usable core.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines even on a terminal.")
def score(
    texts: tuple[str, ...],
    lines: Any,
    text: tuple[str, ...],
    out: Path | None,
    stage: Literal["filter", "model", "cascade"],
    policy: str | None,
    model: str,
    calibration: str | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Score texts: from arguments, a file or stdin; or a whole Parquet file with -o.

    Shows what was decided, by which stage and why, what fired (as offsets into the text), and
    the probability of every category. Prints JSON lines where stdout is not a terminal.
    """
    from edgemod import pipeline, scoring, screen
    from edgemod.triager import Triager

    chosen = None if model == "none" else model
    if out is not None:
        if len(texts) != 1 or lines is not None:
            raise click.UsageError("-o needs exactly one input file: IN.parquet -o OUT.parquet")
        done = scoring.score_file(
            Path(texts[0]),
            out,
            text=text,
            stage=stage,
            policy=policy,
            model=chosen,
            calibration=calibration,
            workers=workers or pipeline.usable_cores(),
        )
        for notice in done.notices:
            click.echo(screen.printable(notice), err=True)
        if done.unreadable:
            click.echo(f"{done.unreadable} rows could not be read: they are null", err=True)
        click.echo(f"{done.rows} rows -> {screen.printable(str(out))}", err=True)
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
            answers = scoring.score(batch, triager=triager)
            if as_json or not sys.stdout.isatty():
                rows = ({"text": i, **dataclasses.asdict(a)} for i, a in enumerate(answers, first))
                click.echo("\n".join(map(json.dumps, rows)))
            else:
                screen.scores(answers, first)
            first += len(batch)


# -- evaluate ----------------------------------------------------------------------------------


@cli.command()
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@_with_text
@click.option(
    "--label-columns",
    "labels",
    metavar="A,B,...",
    help="Columns of labels, named after categories, or any, or unsafe. Default: all there are.",
)
@click.option("--by", metavar="COLUMN", help="Evaluate each group of this column as well.")
@click.option(
    "--stage",
    "stages",
    type=click.Choice(["filter", "model", "cascade"]),
    multiple=True,
    default=["cascade"],
    show_default=True,
    help="Whose probabilities to evaluate; repeat for several. Verdicts are the cascade's.",
)
@click.option(
    "--rows",
    type=click.IntRange(1),
    metavar="N",
    help="At most N labelled records of each file, a random sample. Default: all.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of the sample and of the bootstrap.",
)
@click.option(
    "--bootstrap",
    "resamples",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    metavar="N",
    help="Resamples for the intervals of areas.",
)
@_with_models
@click.option(
    "--workers",
    type=click.IntRange(1, 512),
    metavar="N",
    help="Threads, each with its own models. Default: one for each usable core.",
)
@click.option(
    "--plots",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write curves as SVG: precision and recall, risk and coverage, reliability.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def evaluate(
    data: tuple[str, ...],
    labels: str | None,
    model: str,
    workers: int | None,
    plots: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure decisions against labels: how well each category is ranked, and what is decided.

    DATA is a Parquet file, a folder of them or a glob. A label column holds 1 (violates), 0 (does
    not) and null (unknown, left out). For every file and label: areas under the precision-recall
    and the ROC curve, what comes of it at several thresholds, and the shares of violating and of
    harmless records that are cleared, flagged and sent to review, all with 95 % intervals.
    """
    from edgemod import evaluation, pipeline, screen

    if plots is not None:
        from edgemod import plots as drawing

        options["on_measured"] = drawing.Plots(plots)
    found = evaluation.evaluate(
        data,
        labels=None if labels is None else [name.strip() for name in labels.split(",")],
        model=None if model == "none" else model,
        workers=workers or pipeline.usable_cores(),
        on_notice=lambda notice: click.echo(screen.printable(notice), err=True),
        **options,
    )
    if as_json:
        rows = [dataclasses.asdict(line) for line in found]
        click.echo(json.dumps({"evaluations": rows}, indent=2))
    else:
        screen.evaluations(found)


# -- calibrate ---------------------------------------------------------------------------------


@cli.command()
@click.argument("labels", nargs=-1, required=True, metavar="LABELS...")
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The calibration, for --calibration.",
)
@click.option(
    "--max-miss-rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.02,
    show_default=True,
    metavar="SHARE",
    help="Of the records that violate, the share that may be cleared.",
)
@click.option(
    "--max-false-flag-rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="Of the records flagged, the share that may not violate.",
)
@click.option(
    "--delta",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    metavar="CHANCE",
    help="Chance that what is certified is wrong all the same.",
)
@click.option(
    "--review-budget",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Clear so much that no more goes to people, and bound what that misses.",
)
@click.option("--by", metavar="COLUMN", help="Miss rates must hold in each group of this column.")
@click.option(
    "--uncertified",
    type=click.Choice(["review", "default"]),
    default="review",
    show_default=True,
    help="A category with too few labels: clear nothing, or keep its thresholds, uncertified.",
)
@_options(
    _with_text,
    click.option(
        "--conversation-column",
        "conversation",
        metavar="NAME",
        help="Column that holds a list of messages instead of a text.",
    ),
    click.option(
        "--label-columns",
        "columns",
        metavar="A,B,...",
        help="Columns of labels, named after categories, or any, or unsafe. Default: all.",
    ),
    _with_models,
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Which labels choose and which test.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 512),
    metavar="N",
    help="Threads, each with its own models. Default: one for each usable core.",
)
@click.option("--json", "as_json", is_flag=True, help="The certificate as JSON on stdout.")
def calibrate(
    labels: tuple[str, ...],
    out: Path,
    columns: str | None,
    model: str,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Choose thresholds on your own labels, and certify the risks that you accept.

    LABELS are Parquet files of records that people labelled: columns of 1 (violates), 0 (does not)
    and null (unknown), and inclusion_probability if the records were not drawn alike. Half of them
    choose, half test. A risk that they cannot certify is named, with about how many labels more
    would; what is not certified goes to review. Exits 0 either way: read the table.
    """
    from edgemod import calibrating, pipeline, screen

    made = calibrating.calibrate(
        labels,
        out,
        labels=None if columns is None else [name.strip() for name in columns.split(",")],
        model=None if model == "none" else model,
        workers=workers or pipeline.usable_cores(),
        on_notice=lambda notice: click.echo(screen.printable(notice), err=True),
        **options,
    )
    if as_json:
        click.echo(json.dumps(made.certificate, indent=2))
    else:
        screen.calibration(made, out)


# -- explain -----------------------------------------------------------------------------------


@cli.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False), metavar="OUT")
@click.argument("record_id", metavar="RECORD_ID")
@_with_models
@click.option("--overlay", metavar="NAME", help="The overlay that the run had in force.")
@click.option("--notice", is_flag=True, help="Write the statement for the person concerned.")
@click.option(
    "--contact",
    metavar="TEXT",
    default="[your contact address]",
    help="With --notice: where to contest the decision.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a page.")
def explain(
    run: Path,
    record_id: str,
    policy: str | None,
    model: str,
    calibration: str | None,
    overlay: str | None,
    notice: bool,
    contact: str,
    as_json: bool,
) -> None:
    """Show everything that led to one decision of a complete run; its text is shown, too.

    What was decided and why, features and what fired, the words that weigh most in the filter, the
    language model's probabilities window by window, thresholds and certificate. The input of the
    run must be unchanged, policy and models those of the run.
    """
    from edgemod import explain as explaining
    from edgemod import screen
    from edgemod.triager import Triager

    chosen = None if model == "none" else model
    with Triager(policy, chosen, calibration=calibration, overlay=overlay) as triager:
        found = explaining.explain(run, record_id, triager)
    if notice:
        click.echo(explaining.notice(found, contact), nl=False)
    elif as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        screen.explanation(found)


# -- audit -------------------------------------------------------------------------------------


@cli.group()
def audit() -> None:
    """Learn what a run got wrong, in what nobody reviewed."""


@audit.command("sample")
@click.argument("run", type=click.Path(path_type=Path, file_okay=False), metavar="OUT")
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Folder for the sample, with text.",
)
@click.option(
    "-n",
    "n",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    metavar="N",
    help="About how many records.",
)
@click.option(
    "--format",
    type=click.Choice(["parquet", "csv", "jsonl", "label-studio"]),
    default="parquet",
    show_default=True,
    help="As the review queue has.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Of the draw."
)
@_with_policy
def audit_sample(run: Path, out: Path, **options: Any) -> None:
    """Draw records of all verdicts from a complete run, each with a known chance.

    Half of them alike, half by how much a label would tell. Let people label them without seeing
    the verdict, in columns of 1, 0 and null named after categories, or any; then 'edgemod audit
    report', and 'edgemod calibrate'. The input of the run must be unchanged.
    """
    from edgemod import audit as auditing
    from edgemod.screen import printable

    made = auditing.sample(run, out, **options)
    click.echo(f"{made.exported} records -> {printable(str(out))}: {', '.join(made.files)}")


@audit.command("report")
@click.argument("labels", nargs=-1, required=True, metavar="LABELS...")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def audit_report(labels: tuple[str, ...], as_json: bool) -> None:
    """Estimate from a labelled sample what the whole run holds, missed and flagged wrongly.

    LABELS are Parquet files of 'edgemod audit sample' with label columns added. With 95 % intervals
    that hold for few labels, too.
    """
    from edgemod import audit as auditing
    from edgemod import screen

    found = auditing.report(labels)
    if as_json:
        click.echo(json.dumps({"shares": [dataclasses.asdict(one) for one in found]}, indent=2))
    else:
        screen.audit(found)


# -- inspect -----------------------------------------------------------------------------------


@cli.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def inspect(file: Path, as_json: bool) -> None:
    """Show what is in a dump, which columns look like what, and the command to triage it."""
    from edgemod import inspection, screen

    found = inspection.inspect(file)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=2, default=str))
    else:
        screen.inspection(found)


# -- policy ------------------------------------------------------------------------------------


@cli.group()
def policy() -> None:
    """Check and show policies."""


@policy.command("check")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
def policy_check(file: Path) -> None:
    """Report every mistake in a policy at once, with its line; exit 1 if there is one."""
    from edgemod.policy import load_policy
    from edgemod.screen import printable

    checked = load_policy(file)
    click.echo(
        f"{printable(str(file))}: no mistakes. {len(checked.categories)} categories, "
        f"{len(checked.rules)} rules, {len(checked.lexicons)} lexicons. "
        f"Fingerprint {checked.fingerprint}"
    )


@policy.command("test")
@click.argument("file", type=click.Path(path_type=Path), metavar="[FILE]", required=False)
@click.option("--overlay", metavar="NAME", help="With this overlay of the policy in force.")
@click.option(
    "--model",
    metavar="NAME",
    default="default",
    show_default=True,
    help="Language model, or 'none' to do without.",
)
@click.option("--calibration", metavar="FILE", help="Calibration. Default: the one that ships.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def policy_test(
    file: Path | None, overlay: str | None, model: str, calibration: str | None, as_json: bool
) -> None:
    """Run the test cases that a policy holds, with the real models; exit 1 if one fails.

    Each [[test]] has a name, a text, the verdict that it must get, if need be its category, and
    why. Of what fails it is shown what was decided, by which stage and why, and what fired.
    """
    from edgemod import rehearsal, screen
    from edgemod.triager import Triager

    chosen = None if model == "none" else model
    with Triager(file, chosen, calibration=calibration, overlay=overlay) as triager:
        outcomes = rehearsal.run_tests(triager)
    if as_json:
        click.echo(json.dumps({"tests": [dataclasses.asdict(one) for one in outcomes]}, indent=2))
    else:
        screen.tests(outcomes)
    if not all(one.passed for one in outcomes):
        raise click.exceptions.Exit(1)


@policy.command("backtest")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.argument("labels", nargs=-1, required=True, metavar="LABELS...")
@_with_text
@click.option("--overlay", metavar="NAME", help="With this overlay of the policy in force.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def policy_backtest(
    file: Path, labels: tuple[str, ...], text: tuple[str, ...], overlay: str | None, as_json: bool
) -> None:
    """Show what each rule, word list and term of a policy catches among labelled records.

    LABELS are Parquet files as for 'edgemod evaluate'. Of each: hits, precision, recall, violating
    records that nothing else catches, and what it overlaps with most; what never fires is dead. No
    model runs.
    """
    from edgemod import rehearsal, screen
    from edgemod.policy import load_policy

    found = rehearsal.backtest(load_policy(file, overlay), labels, text=text)
    if as_json:
        click.echo(json.dumps({"catches": [dataclasses.asdict(one) for one in found]}, indent=2))
    else:
        screen.catches(found)


_with_records = _options(
    click.option(
        "--on",
        required=True,
        metavar="OUT_OR_INPUT",
        help="A complete run, whose input is read, or files as for 'edgemod triage'.",
    ),
    _with_text,
    click.option(
        "--model",
        metavar="NAME",
        default="default",
        show_default=True,
        help="Language model, or 'none' to do without.",
    ),
    click.option("--calibration", metavar="FILE", help="Calibration. Default: the one that ships."),
)


@policy.command("diff")
@click.argument("old", type=click.Path(path_type=Path), metavar="OLD")
@click.argument("new", type=click.Path(path_type=Path), metavar="NEW")
@_with_records
@click.option("--overlay", metavar="NAME", help="With this overlay of NEW in force.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def policy_diff(
    old: Path,
    new: Path,
    on: str,
    text: tuple[str, ...],
    model: str,
    calibration: str | None,
    overlay: str | None,
    as_json: bool,
) -> None:
    """Show which records NEW decides otherwise than OLD, and why.

    How many move from which verdict to which, for what reason, the ids of the first, what becomes
    of the review load of each category, and in which files most moves. The language model reads
    each text once.
    """
    from edgemod import rehearsal, screen
    from edgemod.triager import Triager

    chosen = None if model == "none" else model
    with (
        Triager(old, chosen, calibration=calibration) as before,
        Triager(new, chosen, calibration=calibration, overlay=overlay, beside=before) as after,
    ):
        limit = max(before.policy.max_text_bytes, after.policy.max_text_bytes)
        found = rehearsal.compare(before, after, rehearsal.chunks_of(on, limit, text=text))
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        screen.diff(found)


@policy.command("drill")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--overlay", required=True, metavar="NAME", help="The overlay to try.")
@click.option("--reviewers", type=click.IntRange(1), required=True, metavar="N", help="People.")
@click.option(
    "--per-hour",
    type=click.FloatRange(0, min_open=True),
    default=60,
    show_default=True,
    metavar="N",
    help="Records that each of them reads an hour.",
)
@click.option(
    "--shift",
    type=click.FloatRange(0, min_open=True),
    default=8,
    show_default=True,
    metavar="HOURS",
    help="Hours they have; what they do not get to is counted.",
)
@_with_records
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def policy_drill(
    file: Path,
    overlay: str,
    reviewers: int,
    per_hour: float,
    shift: float,
    on: str,
    text: tuple[str, ...],
    model: str,
    calibration: str | None,
    as_json: bool,
) -> None:
    """Replay an archive with an overlay in force, before a crisis does.

    Shows what moves, the size of the review queue with and without it, the hours that the reviewers
    need for it, what they do not get to, by category, and which test cases of the policy fail.
    """
    from edgemod import rehearsal, screen
    from edgemod.triager import Triager

    chosen = None if model == "none" else model
    with (
        Triager(file, chosen, calibration=calibration) as before,
        Triager(file, chosen, calibration=calibration, overlay=overlay, beside=before) as after,
    ):
        found = rehearsal.drill(
            before,
            after,
            rehearsal.chunks_of(on, before.policy.max_text_bytes, text=text),
            reviewers=reviewers,
            per_hour=per_hour,
            shift=shift,
        )
    if as_json:
        told = {**vars(found), "diff": found.diff.to_json()}
        told["failing"] = [dataclasses.asdict(one) for one in found.failing]
        click.echo(json.dumps(told, indent=2))
    else:
        screen.drill(found)


@policy.command("show")
@click.argument("file", type=click.Path(path_type=Path), metavar="[FILE]", required=False)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def policy_show(file: Path | None, as_json: bool) -> None:
    """Show a policy as edgemod understands it, with every default filled in.

    In JSON, thresholds that are null are the calibration's, and a flag_above of null is never.
    """
    from edgemod import screen
    from edgemod.policy import load_policy, to_json

    shown = load_policy(file)
    if as_json:
        click.echo(json.dumps(to_json(shown), indent=2, ensure_ascii=False))
    else:
        screen.policy(shown)


# -- model -------------------------------------------------------------------------------------


@cli.group()
def model() -> None:
    """List, verify and add language models."""


@model.command("list")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def model_list(as_json: bool) -> None:
    """List the models edgemod knows and whether their files are here."""
    from edgemod import screen, store

    entries = store.list_models()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(e) for e in entries], indent=2, default=str))
    else:
        screen.models(entries)


@model.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def model_verify(names: tuple[str, ...]) -> None:
    """Recompute the SHA-256 of models (all that are here, unless named); exit 1 on a mismatch."""
    from edgemod import store

    for entry in store.list_models():
        if entry.name in names or (not names and entry.present):
            store.verify(entry)
            click.echo(f"{entry.name}: SHA-256 as recorded, {entry.sha256}")
    unknown = set(names) - {entry.name for entry in store.list_models()}
    if unknown:
        raise click.UsageError(f"no such model: {', '.join(sorted(unknown))}")


@model.command("add")
@click.argument("path", type=click.Path(path_type=Path), metavar="PATH")
@click.option("--name", required=True, help="The name to use it by.")
@click.option(
    "--template",
    metavar="NAME",
    help="Prompt template: llama-guard-3, shieldgemma, qwen3guard or yes-no.",
)
@click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A LoRA adapter (GGUF) to apply to it.",
)
@click.option(
    "--replace", is_flag=True, help="Record this file in place of the one that NAME stands for."
)
def model_add(
    path: Path, name: str, template: str | None, adapter: Path | None, replace: bool
) -> None:
    """Record a guard model (GGUF) by path and SHA-256, so that --model NAME may use it."""
    from edgemod import guard, prompts, store
    from edgemod.llama import Llama

    if template is not None and template not in prompts.NAMES:
        raise click.UsageError(f"--template is one of {', '.join(prompts.NAMES)}")
    # Raises if llama.cpp cannot read it; an adapter can be tried on the whole network only.
    with Llama(path, vocab_only=adapter is None) as llama:
        guard.check_guard(llama)
        if adapter:
            llama.adapt(adapter)
    entry = store.add(path, name, "guard", template, adapter=adapter, replace=replace)
    click.echo(f"{entry.name}: recorded with SHA-256 {entry.sha256}")


# -- doctor, completion ------------------------------------------------------------------------


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def doctor(as_json: bool) -> None:
    """Check this machine and installation: processor, packages, models, and that it is offline.

    Exits 1 if something edgemod needs is missing or damaged.
    """
    from edgemod import checkup, screen

    findings = checkup.run()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(f) for f in findings], indent=2))
    else:
        screen.findings(findings)
    if not all(finding.ok for finding in findings):
        sys.exit(1)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes edgemod's commands and options in a shell.

    For bash: edgemod completion bash > ~/.local/share/bash-completion/completions/edgemod
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "edgemod", "_EDGEMOD_COMPLETE").source())


def _names_data(text: str) -> bool:
    from edgemod.sources import SUFFIXES

    return not any(map(str.isspace, text)) and text.lower().endswith(tuple(SUFFIXES))


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or with a NUL: a text
        return False
