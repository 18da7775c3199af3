"""What is on this machine: ``model``, ``doctor``, ``bench`` and ``completion``."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import Any

import click

from edgemod.commands.options import with_key, with_models, with_text


@click.group()
def model() -> None:
    """List, verify and add language models."""


@model.command("list")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def model_list(as_json: bool) -> None:
    """List the models and filters edgemod knows and whether their files are here.

    A filter has no name: the calibration of a run names it by SHA-256.
    """
    from edgemod import store
    from edgemod.screen import machine as screen

    entries, filters = store.list_models(), store.list_filters()
    if as_json:
        told = [dataclasses.asdict(entry) for entry in entries]
        told += [{"name": None, "kind": "filter", "path": p, "sha256": sha} for p, sha in filters]
        click.echo(json.dumps(told, indent=2, default=str))
    else:
        screen.models(entries, filters)


@model.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def model_verify(names: tuple[str, ...]) -> None:
    """Recompute the SHA-256 of models (all that are here, unless named); exit 1 on a mismatch."""
    from edgemod import store
    from edgemod.screen.console import printable

    for entry in store.list_models():
        if entry.name in names or (not names and entry.present):
            store.verify(entry)
            for file, digest in entry.files:
                click.echo(
                    f"{entry.name}: {printable(file.name)} has the SHA-256 recorded, {digest}"
                )
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


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def doctor(as_json: bool) -> None:
    """Check this machine and installation: processor, packages, models, and that it is offline.

    Exits 1 if something edgemod needs is missing or damaged.
    """
    from edgemod import checkup
    from edgemod.screen import machine as screen

    findings = checkup.run()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(f) for f in findings], indent=2))
    else:
        screen.findings(findings)
    if not all(finding.ok for finding in findings):
        sys.exit(1)


@click.command()
@click.argument("source", metavar="INPUT")
@with_text
@click.option(
    "--conversation-column",
    "conversation",
    metavar="NAME",
    help="Column that holds a list of messages instead of a text.",
)
@with_models
@click.option(
    "--records",
    "sample",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    metavar="N",
    help="Records of INPUT to measure on.",
)
@click.option(
    "--draw",
    type=click.Choice(["first", "spread"]),
    default="first",
    show_default=True,
    help="Its first records, or records spread evenly over it, which reads all of it.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 512),
    metavar="N",
    multiple=True,
    help="Number of workers to try; repeat for several. Default: from 1 to the usable cores.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    metavar="N",
    help="Measure everything N times and keep the best.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the figures as JSON. They hold no text.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Compare with figures that -o wrote: earlier, or on another machine.",
)
@with_key
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout instead of tables.")
def bench(
    source: str,
    model: str,
    out: Path | None,
    against: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure how fast this machine triages a sample of INPUT, and how many workers it wants.

    INPUT is a Parquet, CSV or JSONL file, a folder of them or a glob. Takes about a minute. The
    sample is copied to a temporary folder, which is removed at the end.
    """
    from edgemod import benchmark, figures, parts, sources
    from edgemod.screen import machine as screen

    def tell(step: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"measuring: {step}", err=True)

    # An end by SIGTERM, too, is to remove the sample.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    old = figures.Benchmark.load(against) if against else None
    if out:
        parts.check_target(out, [one.file for one in sources.discover([source])])
    chosen = None if model == "none" else model
    found = benchmark.bench(source, model=chosen, on_step=tell, **options)
    document = json.dumps(found.to_json(), indent=2)
    if as_json:
        click.echo(document)
    else:
        screen.benchmark(found, figures.compare(found, old) if old else None)
    if out:
        parts.write_bytes(out, document.encode())


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes edgemod's commands and options in a shell.

    For bash: edgemod completion bash > ~/.local/share/bash-completion/completions/edgemod
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    root = click.get_current_context().find_root().command
    click.echo(found(root, {}, "edgemod", "_EDGEMOD_COMPLETE").source())
