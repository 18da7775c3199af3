"""What is on this machine: ``model``, ``doctor`` and ``completion``."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import click


@click.group()
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
            for file, digest in entry.files:
                click.echo(f"{entry.name}: {file.name} has the SHA-256 recorded, {digest}")
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
    from edgemod import checkup, screen

    findings = checkup.run()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(f) for f in findings], indent=2))
    else:
        screen.findings(findings)
    if not all(finding.ok for finding in findings):
        sys.exit(1)


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
