"""The command line: arguments in, calls of the library out.

exits.py says how the process ends. Modules that are slow to import are imported inside the
commands, so that ``--help`` is instant.
"""

from __future__ import annotations

import click

from edgemod import __version__, exits
from edgemod.commands import insight, machine, measure, policies, report, review, run


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


for command in (
    run.triage,
    run.merge,
    run.verify,
    run.score,
    run.inspect,
    measure.evaluate,
    measure.calibrate,
    measure.learn,
    measure.audit,
    measure.explain,
    report.report,
    review.review,
    insight.trends,
    policies.policy,
    machine.model,
    machine.doctor,
    machine.bench,
    machine.completion,
):
    cli.add_command(command)
