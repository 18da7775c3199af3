"""Curves of an evaluation as SVG files. Needs the extra ``plots`` (matplotlib).

Three panels for each label of each file, a line a stage, of the label's own probability:

- precision over recall;
- the share of wrong records over the share that is kept, the surest first (its area is AUGRC);
- the share that violates over the probability given, in ten bins of equally many records: a
  calibrated probability lies on the diagonal.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgemod.errors import InputError
from edgemod.metrics import Labels, Scores
from edgemod.parts import make_folder, write_bytes

_BINS: Final = 10


class Plots:
    """Draws into a folder what ``evaluation.evaluate`` tells it.

    Raises InputError if matplotlib is not installed, OutputError if the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import matplotlib as mpl
        except ImportError as error:
            raise InputError(
                "drawing needs matplotlib",
                where="--plots",
                fix="Install the extra: pip install 'edgemod[plots]'.",
            ) from error
        mpl.use("svg")
        # The same curves are the same bytes, and words stay words.
        mpl.rcParams.update({"svg.hashsalt": "edgemod", "svg.fonttype": "none"})
        self.folder = folder
        make_folder(folder)
        write_bytes(folder / ".probe", b"")  # sooner than after hours of scoring
        (folder / ".probe").unlink()

    def __call__(self, file: str, label: str, truth: Labels, p: Mapping[str, Scores]) -> Path:
        """Draw one label: ``truth`` (n,) of 1, 0 and -1, and probabilities (n,) by stage."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(11, 3.6), layout="constrained")
        curve, risk, trust = figure.subplots(1, 3)
        trust.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        for stage, values in p.items():
            known = (truth >= 0) & ~np.isnan(values)
            answers, given = truth[known] == 1, np.asarray(values[known], np.float64)
            if not (answers.any() and (~answers).any()):
                continue
            curve.plot(*precision_recall(answers, given), label=stage, drawstyle="steps-pre")
            risk.plot(*risk_coverage(answers, given), label=stage)
            trust.plot(*reliability(answers, given), label=stage, marker="o", markersize=3)
        for axes, x, y in (
            (curve, "recall", "precision"),
            (risk, "kept", "kept and wrong"),
            (trust, "probability", "share that violates"),
        ):
            axes.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, None if axes is risk else 1.02))
            axes.grid(alpha=0.3)
            if axes.lines:
                axes.legend(frameon=False)
        shown = "".join(c if c.isprintable() else "?" for c in f"{file}: {label}")
        figure.suptitle(shown, parse_math=False)
        # Files of one name in several folders have several plots.
        short = hashlib.sha256(file.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        safe = re.sub(r"[^\w.-]+", "_", Path(file).stem)[:80]
        path = self.folder / f"{safe}-{short}-{label}.svg"
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
        write_bytes(path, drawn.getvalue())
        return path


def precision_recall(answers: npt.NDArray[np.bool_], p: Scores) -> tuple[Any, Any]:
    """Recall and precision at each distinct probability, the greatest first."""
    order = np.argsort(-p, kind="stable")
    found = np.cumsum(answers[order])
    last = np.append(p[order][1:] != p[order][:-1], True)
    taken = np.arange(1, len(p) + 1)
    return found[last] / answers.sum(), found[last] / taken[last]


def risk_coverage(answers: npt.NDArray[np.bool_], p: Scores) -> tuple[Any, Any]:
    """Share kept and share kept and wrong, the surest first; equally sure ones together."""
    order = np.argsort(-np.abs(p - 0.5).round(9), kind="stable")
    sure = np.abs(p - 0.5).round(9)[order]
    last = np.append(sure[1:] != sure[:-1], True)
    wrong = np.cumsum((p[order] >= 0.5) != answers[order]) / len(p)
    kept = np.arange(1, len(p) + 1) / len(p)
    return np.append(0, kept[last]), np.append(0, wrong[last])


def reliability(answers: npt.NDArray[np.bool_], p: Scores) -> tuple[Any, Any]:
    """Mean probability and share that violates in bins of about equally many records."""
    parts = [part for part in np.array_split(np.argsort(p, kind="stable"), _BINS) if len(part)]
    return [float(p[part].mean()) for part in parts], [
        float(answers[part].mean()) for part in parts
    ]
