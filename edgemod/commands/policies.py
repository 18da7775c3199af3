"""``policy``: check, show, test, backtest, diff and drill."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgemod.commands.options import grouped, with_key, with_text
from edgemod.words import counted

if TYPE_CHECKING:
    from edgemod.rehearsal import Archive
    from edgemod.triager import Triager


@click.group()
def policy() -> None:
    """Check, show, test and try policies."""


@policy.command("check")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
def policy_check(file: Path) -> None:
    """Report every mistake in a policy at once, with its line; exit 1 if there is one."""
    from edgemod.policy import load_policy
    from edgemod.screen.console import printable

    checked = load_policy(file)
    click.echo(
        f"{printable(str(file))}: no mistakes. "
        f"{counted(len(checked.categories), 'category', 'categories')}, "
        f"{counted(len(checked.rules), 'rule')}, {counted(len(checked.lexicons), 'lexicon')}. "
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
    from edgemod import rehearsal
    from edgemod.screen import policies as screen
    from edgemod.triager import Triager

    chosen = None if model == "none" else model
    with Triager(file, chosen, calibration=calibration, overlay=overlay, trial=True) as triager:
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
@with_text
@click.option("--overlay", metavar="NAME", help="With this overlay of the policy in force.")
@with_key
@click.option("--show", is_flag=True, help="Show terms without a mask.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def policy_backtest(
    file: Path,
    labels: tuple[str, ...],
    text: tuple[str, ...],
    overlay: str | None,
    show: bool,
    as_json: bool,
) -> None:
    """Show what each rule, word list and term of a policy catches among labelled records.

    LABELS are Parquet files as for 'edgemod evaluate'. Of each: hits, precision, recall, violating
    records that nothing else catches, and what it overlaps with most; what never fires is dead.
    Terms are masked. No model runs.
    """
    from edgemod import rehearsal, suggesting
    from edgemod.policy import load_policy
    from edgemod.screen import policies as screen

    found = rehearsal.backtest(load_policy(file, overlay), labels, text=text)
    if not show:
        found = [*map(suggesting.masked, found)]
    if as_json:
        click.echo(json.dumps({"catches": [dataclasses.asdict(one) for one in found]}, indent=2))
    else:
        screen.catches(found)


@contextlib.contextmanager
def _pair(
    old: tuple[Path, str | None],
    new: tuple[Path, str | None],
    archive: Archive,
    model: str | None,
    calibration: str | None,
) -> Iterator[tuple[Triager, Triager]]:
    """Triagers of two policies, each a file and an overlay, to be tried on an archive."""
    from edgemod.triager import Triager

    told = archive.run[1].get("made_with", {}) if archive.run else {}
    model = model or told.get("model") or ("none" if told else "default")
    had = calibration or told.get("calibration")

    def opened(chosen: tuple[Path, str | None], beside: Triager | None = None) -> Triager:
        file, overlay = chosen
        return Triager(
            file,
            None if model == "none" else model,
            calibration=had,
            overlay=overlay,
            beside=beside,
            trial=True,
        )

    with opened(old) as before, opened(new, before) as after:
        if calibration is None:
            archive.check_calibration(before)
        certificate = before.calibration.certificate
        prints = after.fingerprints()
        others = [n for n in ("policy", "model") if (certificate or prints)[n] != prints[n]]
        if others:
            click.echo(
                f"the certificate of the calibration is not for the {' and '.join(others)} that is "
                "tried: to use it in earnest, calibrate anew",
                err=True,
            )
        yield before, after


_with_records = grouped(
    click.option(
        "--on",
        required=True,
        metavar="OUT_OR_INPUT",
        help="A complete run, whose input is read, or files as for 'edgemod triage'.",
    ),
    with_text,
    click.option(
        "--by", metavar="COLUMN", help="Tell apart the groups of this column. Default: the files."
    ),
    click.option(
        "--model",
        metavar="NAME",
        help="Language model, or 'none'. Default: that of the run, else the one that ships.",
    ),
    click.option(
        "--calibration",
        metavar="FILE",
        help="Calibration. Default: that of the run, else the one that ships.",
    ),
)


@policy.command("diff")
@click.argument("old", type=click.Path(path_type=Path), metavar="OLD")
@click.argument("new", type=click.Path(path_type=Path), metavar="NEW")
@_with_records
@click.option("--overlay", metavar="NAME", help="With this overlay of NEW in force.")
@with_key
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def policy_diff(
    old: Path,
    new: Path,
    on: str,
    text: tuple[str, ...],
    by: str | None,
    model: str | None,
    calibration: str | None,
    overlay: str | None,
    as_json: bool,
) -> None:
    """Show which records NEW decides otherwise than OLD, and why.

    How many move from which verdict to which, for what reason, the ids of the first, what becomes
    of the review load of each category, and in which groups most moves. The language model reads
    each text once; of a run with --keep-scores, only what that run did not have it read.
    """
    from edgemod import rehearsal
    from edgemod.screen import policies as screen

    archive = rehearsal.Archive.open(on, text=text, by=by)
    with _pair((old, None), (new, overlay), archive, model, calibration) as (before, after):
        found = rehearsal.compare(before, after, archive)
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
@with_key
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def policy_drill(
    file: Path,
    overlay: str,
    reviewers: int,
    per_hour: float,
    shift: float,
    on: str,
    text: tuple[str, ...],
    by: str | None,
    model: str | None,
    calibration: str | None,
    as_json: bool,
) -> None:
    """Replay an archive with an overlay in force, before a crisis does.

    Shows what moves, the size of the review queue with and without it, the hours that the reviewers
    need for it, what they do not get to, by category, and which test cases fail because of it.
    """
    from edgemod import rehearsal
    from edgemod.screen import policies as screen

    archive = rehearsal.Archive.open(on, text=text, by=by)
    with _pair((file, None), (file, overlay), archive, model, calibration) as (before, after):
        found = rehearsal.drill(
            before,
            after,
            archive,
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
    from edgemod.policy import load_policy, to_json
    from edgemod.screen import policies as screen

    shown = load_policy(file)
    if as_json:
        click.echo(json.dumps(to_json(shown), indent=2))
    else:
        screen.policy(shown)
