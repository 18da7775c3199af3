"""What each pool of training texts gives the filter: train without it, and measure.

    python scripts/ablate_filter.py DATA [--cache FOLDER]

The page printed has the AUPRC on development sets of the filter with all pools and of filters
without one, float weights, one seed each: the label's own output and "any". The language model's
opinions of archive posts come from --cache where they are there, and else take 8 minutes first.
A minute a filter.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from compare_encoders import SETS
from edgemod.metrics import average_precision
from edgemod.words import ANY, OUTPUTS
from train_filter import POOLS, TAUGHT, find_grams, fit, pools, predict, taught
from training_data import is_weak, load_dev


@click.command(help=__doc__)
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False))
def main(data: Path, cache: Path | None) -> None:
    """Train, measure, print."""
    dev = {name: part for name, part in load_dev(data).items() if name in SETS}
    grams = {name: find_grams(part.arrow()) for name, part in dev.items()}
    cells: dict[str, list[str]] = {name: [] for name in SETS}
    archive = taught(data, TAUGHT, cache)
    for without in ("", *POOLS):
        train, targets, counts, _ = pools(data, archive, without)
        weights, bias = fit(find_grams(train.arrow()), targets, counts, is_weak(train))
        for name, label in SETS.items():
            scores = predict(grams[name].found, grams[name].starts, weights, bias)
            column = dev[name].labels[:, OUTPUTS.index(label)]
            known = (column >= 0) & np.isfinite(scores).all(axis=1)
            both = [
                average_precision(column[known] == 1, scores[known, k])
                for k in (OUTPUTS.index(label), OUTPUTS.index(ANY))
            ]
            cells[name].append(" / ".join(f"{value:.3f}" for value in both))
    header = ["all", *(f"without {name}" for name in POOLS)]
    click.echo(f"| set | {' | '.join(header)} |\n|---|{'---|' * len(header)}")
    for name, row in cells.items():
        click.echo(f"| {name}, {SETS[name]} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
