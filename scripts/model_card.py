"""Write docs/model-card.md from what ships and what was measured; a test fails if it is old.

    python scripts/model_card.py [--manifest MANIFEST.json]

Reads quantized/ (models.toml, calibration.json, DATA_CARD.md, file sizes) and docs/scoreboard.md:
no model, no network, a moment. With the MANIFEST.json of the data folder, it says first where that
states another licence than the data card.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from edgemod import store
from edgemod.words import CATEGORIES

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "model-card.md"
QUANTIZED: Final = ROOT / "quantized"

FAILURES: Final = (
    (
        "Mentions of identity",
        "Naming a group is taken for attacking it: made-up sentences that name one and praise or "
        "state, and those that insult.",
        ("identity_templates_en", "toxic"),
    ),
    (
        "Near misses of hate",
        "Functional tests with emoji: sentences of hate, and the same with a word or an emoji "
        "changed so that they are none.",
        ("hatemoji_check", "hate"),
    ),
    (
        "Hate without slurs",
        "Sentences from a forum where hate is ordinary and politely worded.",
        ("vicomtech_stormfront", "hate"),
    ),
    (
        "Victims' accounts",
        "Reports of harassment by those who suffered it: none of them violates.",
        ("safecity", "any"),
    ),
    (
        "Toxicity at its natural rate",
        "Wikipedia comments, of which one in fifty is toxic, mostly mildly and in context.",
        ("context_toxicity_dev", "toxic"),
    ),
    (
        "Requests that sound harmful and are not",
        "Requests to an assistant, safe and unsafe in pairs of like words.",
        ("xstest", "illicit"),
    ),
    (
        "Harmless talk of security",
        "Requests for code that look like attacks and are everyday work.",
        ("cyberseceval_frr", "any"),
    ),
    (
        "Attacks on a chat bot",
        "Prompt injection is no category of the policy: most of it is cleared.",
        ("cyberseceval_prompt_injection", "illicit"),
    ),
)
"""What, in words, and the set and label of the scoreboard that shows it."""

UNMEASURED: Final = (
    ("Languages", "English alone was trained and measured. Text that is confidently in another "
     "language goes to people; a short one in Latin letters is not recognised, and is scored."),
    ("Dialect", "Not measured: no set here labels dialect. Two training sets (`davidson`, "
     "`hatexplain`) were found by word lists and are known to take African American English for "
     "abuse; expect that here too."),
    ("Reclaimed slurs", "Not measured by themselves. The models do not know who speaks: a slur "
     "that a group uses of itself is treated as one used against it, and if it is in the word list "
     "it is never cleared unseen."),
    ("Counter-speech and quoted hate", "Not measured by themselves. Text that quotes or answers "
     "hate shares its words. Two rules of the shipped policy keep what is mostly quoted, or tells "
     "of a slur, from being flagged; it goes to people instead."),
    ("Sexual content, self-harm, illicit trade", "Learned mostly from the subreddit that a post "
     "stood in: they say what a text is about rather than whether it breaks a rule. No development "
     "set has labels of `sexual`, `self_harm` or `pii` on both sides."),
    ("New words", "Most training text is ten years old. Slang, scams and codes since then are "
     "unknown."),
    ("Context", "A record is read alone. Abuse that needs the thread to be understood is missed."),
)  # fmt: skip
"""Failures that no figure here shows, and why they are to be expected."""


@click.command(help=__doc__)
@click.option("--manifest", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def main(manifest: Path | None) -> None:
    """Compare, write."""
    if manifest is not None:
        stated = json.loads(manifest.read_text())["train"]
        for name, *_, licence, _ in training_sets():
            if (other := stated.get(name, {}).get("licence")) and other != licence:
                click.echo(f"{name}: the data card says {licence!r}, the manifest {other!r}")
    PAGE.write_text(page())


def page() -> str:
    """The whole page in Markdown."""
    models = tomllib.loads((QUANTIZED / "models.toml").read_text())["model"]
    default = next(model for model in models if model["name"] == "default")
    calibration = json.loads((QUANTIZED / "calibration.json").read_text())
    evidence = calibration["evidence"]
    return "\n".join([
        "# Model card",
        "",
        "Written by `scripts/model_card.py` from what ships and what was measured; do not edit. "
        "How the models were made: [quantized/MODEL_CARD.md](../quantized/MODEL_CARD.md), [models]"
        "(models.md). What they were made from: [data card](../quantized/DATA_CARD.md).",
        "",
        "## What it is",
        "",
        "A filter (hashed n-grams) and a sentence encoder of 22 million parameters, each with ten "
        f"outputs: {', '.join(CATEGORIES)}, and any. A calibration makes probabilities of both.",
        "",
        *_table(("part", "bytes", "SHA-256"), [
            *((name, f"{(QUANTIZED / name).stat().st_size:,}", f"`{digest}`") for name, digest in (
                (default["file"], default["sha256"]),
                (default["head"], default["head_sha256"]),
                ("filter.safetensors", store.sha256(QUANTIZED / "filter.safetensors")),
                ("calibration.json", store.sha256(QUANTIZED / "calibration.json")),
            )),
        ]),
        "",
        f"Licence: {default['licence']}. Source: {default['source']}. Made by: {default['made']}.",
        "",
        "## Intended use",
        "",
        "Sorting large dumps of English comments, chats and conversations offline, so that people "
        "read what is in doubt. It settles what it is sure of by thresholds that the user chooses "
        "or certifies on labels of their own, and names a reason for everything.",
        "",
        "## Out of scope",
        "",
        "- Deciding about a person: a ban, a report to the police, a job, a credit.",
        "- Acting without a person on what was flagged, unless error rates on your own records are "
        "known ([calibration](calibration.md)) and there is an appeal.",
        "- Languages other than English, images, sound, and texts that are not what people write.",
        "- Detecting children's abuse material, terrorism or prompt injection: no part was made "
        "for these.",
        "- Measuring how toxic a community is, without correcting for the errors below.",
        "",
        "## Training data",
        "",
        *_sets(),
        "",
        "## Figures",
        "",
        f"Held-out rows of the training sets, {evidence['rows']['reported on']:,} that thresholds "
        "did not see. Other sets are harder.",
        "",
        *_table(
            ("category", "violating", "of them cleared", "of them flagged", "harmless flagged"),
            (
                (
                    name,
                    f"{told['violating']:,}",
                    f"{told['missed']:.1%}",
                    f"{told['violating flagged']:.1%}",
                    f"{told['falsely flagged']:.2%}",
                )
                for name, told in _held_out(evidence["found on other rows"])
            ),
        ),
        "",
        "## Failures",
        "",
        "Shown by figures of the [scoreboard](scoreboard.md), on sets that nothing was trained on, "
        "in brackets 95 % intervals" + _stale(calibration) + ":",
        "",
        *_table(
            ("what", "set", "violating", "cleared", "flagged", "harmless", "cleared", "flagged"),
            (
                (f"**{what}.** {why}", f"{name}, {label}", *_shares(name, label))
                for what, why, (name, label) in FAILURES
            ),
        ),
        "",
        "Not shown by any figure here, and to be expected:",
        "",
        *(f"- **{what}.** {why}" for what, why in UNMEASURED),
        "",
        "## What to do about it",
        "",
        "Label a sample of your own records (`edgemod audit sample`), by group if there are any, "
        "and calibrate on it (`edgemod calibrate --by`). Keep an appeal open, and count what it "
        "overturns.",
        "",
    ])  # fmt: skip


def _held_out(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """What both stages in a row do, by category, and on two kinds of text that are hard."""
    yield from found["run"].items()
    for kind, of in found.items():
        if kind.startswith("run, "):
            yield f"any, {kind.removeprefix('run, ')}", of["any"]


def training_sets() -> list[list[str]]:
    """Rows of the data card: set, trained on, held out, from, licence, to know."""
    text = (QUANTIZED / "DATA_CARD.md").read_text()
    first = text[text.index("| set | trained on |") : text.index("Besides these:")]
    rows = (line.strip("| ").split(" | ") for line in first.strip().splitlines()[2:])
    return [[cell.strip("` ") for cell in row] for row in rows]


def _sets() -> Iterator[str]:
    rows = training_sets()
    total = sum(int(row[1].replace(",", "")) for row in rows)
    yield (
        f"{total:,} rows of {len(rows)} public sets, public-domain posts with weak labels, and "
        "texts written for edgemod. Sets were taken whose stated or original licence allows "
        "shipping weights trained on them."
    )
    yield ""
    yield from _table(
        ("set", "rows", "licence", "to know"), ((r[0], r[1], r[4], r[5]) for r in rows)
    )


def _scoreboard() -> str:
    return (ROOT / "docs" / "scoreboard.md").read_text()


def _shares(name: str, label: str) -> list[str]:
    """Violating, cleared, flagged; harmless, cleared, flagged: of the table of verdicts."""
    verdicts = _scoreboard().split("## Verdicts")[1].split("\n## ")[0]
    found = re.search(rf"^\| {name} \| {label} \| (.+) \|$", verdicts, re.MULTILINE)
    assert found is not None, f"the scoreboard has no verdicts of {name}, {label}"
    cells = found[1].split(" | ")
    return [*cells[:3], *cells[4:7]]


def _stale(calibration: dict[str, Any]) -> str:
    """What the scoreboard was measured with, if that is not what ships."""
    told = dict(re.findall(r"^\| (\w+) \| `([0-9a-f]{64})` \|$", _scoreboard(), re.MULTILINE))
    other = [name for name in ("filter", "model") if told.get(name) != calibration[name]]
    return f" (measured with another {' and '.join(other)} than ships)" if other else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield "|---" * len(header) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    main()
