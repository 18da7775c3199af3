"""With people's labels: ``evaluate``, ``calibrate`` and ``audit``; ``explain`` one decision."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import click

from edgemod.commands.options import (
    grouped,
    with_key,
    with_models,
    with_policy,
    with_policy_of_run,
    with_stall,
    with_text,
    with_workers,
)
from edgemod.words import counted

_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


_with_false_flags = click.option(
    "--max-false-flag-rate",
    type=_SHARE,
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="Of the records flagged, the share that may not violate.",
)
_with_label_columns = click.option(
    "--label-columns",
    "columns",
    metavar="A,B,...",
    help="Columns of labels, named after categories, or any, or unsafe. Default: all.",
)


@click.command()
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@with_text
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
@with_models
@with_workers
@with_stall
@click.option(
    "--plots",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write curves as SVG: precision and recall, risk and coverage, reliability.",
)
@with_key
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
    from edgemod import evaluation, machine
    from edgemod.screen import measure as screen
    from edgemod.screen.console import printable

    if plots is not None:
        from edgemod import plots as drawing

        options["on_measured"] = drawing.Plots(plots)
    chosen = None if model == "none" else model
    found = evaluation.evaluate(
        data,
        labels=None if labels is None else [name.strip() for name in labels.split(",")],
        model=chosen,
        workers=machine.workers(workers, None, chosen),
        on_notice=lambda notice: click.echo(printable(notice), err=True),
        **options,
    )
    if as_json:
        rows = [dataclasses.asdict(line) for line in found]
        click.echo(json.dumps({"evaluations": rows}, indent=2))
    else:
        screen.evaluations(found)


@click.command()
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
    type=_SHARE,
    metavar="SHARE",
    help="Of the records that violate, the share that may be cleared. Default: 0.02.",
)
@_with_false_flags
@click.option(
    "--delta",
    type=_SHARE,
    default=0.05,
    show_default=True,
    metavar="CHANCE",
    help="Chance that what is certified is wrong all the same.",
)
@click.option(
    "--review-budget",
    type=_SHARE,
    metavar="SHARE",
    help="Instead: clear so much that no more goes to people, and bound what that misses.",
)
@click.option("--by", metavar="COLUMN", help="Miss rates must hold in each group of this column.")
@click.option(
    "--uncertified",
    type=click.Choice(["review", "default"]),
    default="review",
    show_default=True,
    help="A category with too few labels: clear nothing, or keep its thresholds, uncertified.",
)
@grouped(
    with_text,
    click.option(
        "--conversation-column",
        "conversation",
        metavar="NAME",
        help="Column that holds a list of messages instead of a text.",
    ),
    click.option(
        "--context-column",
        "context",
        metavar="NAME",
        help="Column with what the record answers to, if the run has one.",
    ),
    _with_label_columns,
    with_models,
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Which labels choose and which test.",
)
@with_workers
@with_stall
@with_key
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
    from edgemod import calibrating, machine
    from edgemod.screen import measure as screen
    from edgemod.screen.console import printable
    from edgemod.screen.progress import reading

    chosen = None if model == "none" else model
    with reading(sys.stderr.isatty()) as on_progress:
        made = calibrating.calibrate(
            labels,
            out,
            labels=None if columns is None else [name.strip() for name in columns.split(",")],
            model=chosen,
            workers=machine.workers(workers, None, chosen),
            on_notice=lambda notice: click.echo(printable(notice), err=True),
            on_progress=on_progress,
            **options,
        )
    if as_json:
        click.echo(json.dumps(made.certificate, indent=2))
    else:
        screen.calibration(made, out)


@click.command()
@with_key
@click.argument("labels", nargs=-1, required=True, metavar="LABELS...")
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="New folder for the calibration, the card and, if they are better, filter and head.",
)
@click.option(
    "--name",
    default="learned",
    show_default=True,
    metavar="NAME",
    help="Name of the model with the new head, for --model.",
)
@with_text
@_with_label_columns
@with_policy
@click.option(
    "--model",
    metavar="NAME",
    default="default",
    show_default=True,
    help="Language model to start from, or 'none'. Only an encoder has a head to move.",
)
@click.option(
    "--max-miss-rate",
    type=_SHARE,
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="Of the records that violate, the share that may be cleared.",
)
@_with_false_flags
@click.option(
    "--bar",
    type=_SHARE,
    default=0.1,
    show_default=True,
    metavar="SHARE",
    help="Suggest to retire rules and terms whose precision is surely below.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Which labels fit, which compare and which certify.",
)
@with_workers
@click.option("--show", is_flag=True, help="Show and write suggested terms without a mask.")
@click.option("--json", "as_json", is_flag=True, help="The card as JSON on stdout.")
def learn(
    labels: tuple[str, ...],
    out: Path,
    columns: str | None,
    model: str,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Learn from your own labels, on this machine: thresholds, and if that helps filter and head.

    LABELS are Parquet files as of 'edgemod calibrate'. Two fifths of them fit, one fifth compares
    the new with the old, two fifths certify. What is not surely better is not adopted. Suggests
    rules to retire, terms to add and, where a column 'reviewer' says who labelled, categories that
    reviewers disagree about; nothing of that is done for you.
    """
    from edgemod import learning, machine
    from edgemod.screen import measure as screen
    from edgemod.screen.console import printable

    chosen = None if model == "none" else model
    found = learning.learn(
        labels,
        out,
        labels=None if columns is None else [name.strip() for name in columns.split(",")],
        model=chosen,
        workers=machine.workers(workers, None, chosen),
        on_notice=lambda notice: click.echo(printable(notice), err=True),
        **options,
    )
    if as_json:
        click.echo((out / "card.json").read_text(), nl=False)
    else:
        screen.learned(found, out)


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False), metavar="OUT")
@click.argument("record_id", metavar="RECORD_ID")
@with_policy_of_run
@click.option("--model", metavar="NAME", help="The run's model, if its name is another now.")
@click.option(
    "--calibration", metavar="FILE", help="The run's calibration, if it is not where it was."
)
@click.option("--overlay", metavar="NAME", help="The overlay in force. Default: that of the run.")
@click.option(
    "--pseudonymise",
    metavar="KEYFILE",
    help="The run's key, if RECORD_ID is the name in the input and no pseudonym.",
)
@click.option("--notice", is_flag=True, help="Write the statement for the person concerned.")
@click.option(
    "--contact",
    metavar="TEXT",
    default="[your contact address]",
    help="With --notice: where to contest the decision.",
)
@with_key
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a page.")
def explain(
    run: Path,
    record_id: str,
    pseudonymise: str | None,
    notice: bool,
    contact: str,
    as_json: bool,
    **parts: str | None,
) -> None:
    """Show everything that led to one decision of a complete run; its text is shown, too.

    What was decided and why, features and what fired, the words that weigh most in the filter, the
    language model's probabilities window by window, thresholds and certificate. Input, policy,
    calibration and model are found where the run had them, and must be unchanged.
    """
    from edgemod import explain as explaining
    from edgemod.screen import measure as screen
    from edgemod.screen.console import printable

    with explaining.triager_of(run, **parts) as triager:
        found = explaining.explain(run, record_id, triager, pseudonymise)
    if notice:
        click.echo(printable(explaining.notice(found, contact), lines=True), nl=False)
    elif as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        screen.explanation(found)


@click.group()
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
    help="New folder for the sample, with text.",
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
    type=click.Choice(["parquet", "csv", "jsonl"]),
    default="parquet",
    show_default=True,
    help="As the review queue has.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Of the draw."
)
@with_policy_of_run
@with_key
def audit_sample(run: Path, out: Path, **options: Any) -> None:
    """Draw records of all verdicts from a complete run, each with a known chance.

    Half of them alike, a quarter of what was flagged, the rest by how much a label would tell. Let
    people label them without seeing the verdict, in columns of 1, 0 and null named after
    categories, or any; then 'edgemod audit report', and 'edgemod calibrate'. The input of the run
    must be unchanged.
    """
    from edgemod import audit as auditing
    from edgemod.screen.console import printable

    made = auditing.sample(run, out, **options)
    told = f"{counted(made.exported, 'record')} written to {printable(str(out))}"
    click.echo(f"{told}: {', '.join(made.files)}", err=True)


@audit.command("report")
@click.argument("labels", nargs=-1, required=True, metavar="LABELS...")
@with_key
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def audit_report(labels: tuple[str, ...], as_json: bool) -> None:
    """Estimate from a labelled sample what the whole run holds, missed and flagged wrongly.

    LABELS are Parquet files of 'edgemod audit sample' with label columns added. With 95 % intervals
    that hold for few labels, too.
    """
    from edgemod import audit as auditing
    from edgemod.screen import measure as screen

    found = auditing.report(labels)
    if as_json:
        click.echo(json.dumps({"shares": [dataclasses.asdict(one) for one in found]}, indent=2))
    else:
        screen.audit(found)
