"""edgemod: triage large dumps of interactions for moderation, entirely offline.

>>> import edgemod
>>> report = edgemod.triage("dump.parquet", "out", text="body")  # doctest: +SKIP
>>> edgemod.score(["see you at eight"])[0].verdict  # doctest: +SKIP
'clear'

Importing the package is cheap; what a function needs is loaded when it is called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "CATEGORIES": "words",
    "OUTPUTS": "words",
    "EdgemodError": "errors",
    "Evaluation": "evaluation",
    "Policy": "policy",
    "RunReport": "report",
    "Score": "scoring",
    "Triager": "triager",
    "calibrate": "calibrating",
    "evaluate": "evaluation",
    "filter_scores": "scoring",
    "load_policy": "policy",
    "merge": "merging",
    "score": "scoring",
    "triage": "pipeline",
    "verify": "verifying",
}

__all__ = [
    "CATEGORIES",
    "OUTPUTS",
    "EdgemodError",
    "Evaluation",
    "Policy",
    "RunReport",
    "Score",
    "Triager",
    "__version__",
    "calibrate",
    "evaluate",
    "filter_scores",
    "load_policy",
    "merge",
    "score",
    "triage",
    "verify",
]

if TYPE_CHECKING:
    from edgemod.calibrating import calibrate
    from edgemod.errors import EdgemodError
    from edgemod.evaluation import Evaluation, evaluate
    from edgemod.merging import merge
    from edgemod.pipeline import triage
    from edgemod.policy import Policy, load_policy
    from edgemod.report import RunReport
    from edgemod.scoring import Score, filter_scores, score
    from edgemod.triager import Triager
    from edgemod.verifying import verify
    from edgemod.words import CATEGORIES, OUTPUTS


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgemod' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"edgemod.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
