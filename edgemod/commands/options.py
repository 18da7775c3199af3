"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def grouped(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in their order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _use(context: click.Context, option: click.Parameter, path: str | None) -> None:
    if path is not None:
        from edgemod import encryption

        encryption.use(path)


with_key = click.option(
    "--key-file",
    metavar="KEYFILE",
    expose_value=False,
    callback=_use,
    help="Read encrypted Parquet, and encrypt what is written, under the key in this file.",
)
with_policy = click.option(
    "--policy",
    metavar="FILE",
    help="Policy in TOML. Default: the one that ships with edgemod.",
)
with_policy_of_run = click.option(
    "--policy",
    metavar="FILE",
    help="The policy of the run, if it is not where it was.",
)
with_models = grouped(
    with_policy,
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
with_text = click.option(
    "--text-column",
    "text",
    metavar="NAME",
    multiple=True,
    help="Column that holds the text; repeat to join several. Default: guessed, with a notice.",
)
with_workers = click.option(
    "--workers",
    type=click.IntRange(1, 512),
    metavar="N",
    help="Worker processes. Default: one for each usable core, if the memory limit leaves room.",
)
with_stall = click.option(
    "--stall-seconds",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    metavar="SECONDS",
    help="Silence after which a worker is taken to hang, and is replaced. Default: 600.",
)
