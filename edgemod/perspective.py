"""Texts to the attributes of the Perspective API, in the shape of its responses, offline.

The API (Jigsaw, "Perspective", v1alpha1, method comments:analyze) closes at the end of 2026.
Archives and papers that used it can go on with numbers from a model of a fixed digest. They are
edgemod's numbers under the API's names, not the API's: ``docs/reporting.md`` has how well the two
agree, and which attributes are approximations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from edgemod import features, language, records
from edgemod.calibration import FloatMatrix
from edgemod.records import Columns
from edgemod.scoring import StageName
from edgemod.triager import Triager
from edgemod.words import FEATURES, OUTPUTS, Status

GREATEST: Final[dict[str, tuple[str, ...]]] = {
    "TOXICITY": ("toxic", "harassment", "hate", "threat_violence"),
    "SEVERE_TOXICITY": ("hate", "threat_violence"),
    "IDENTITY_ATTACK": ("hate",),
    "INSULT": ("harassment", "hate"),
    "THREAT": ("threat_violence",),
    "SEXUALLY_EXPLICIT": ("sexual",),
}
"""Attributes that are the greatest probability of some outputs."""

LEXICONS: Final = ("profanity", "profanity_stems", "slurs", "slur_stems")
"""Whose hits make PROFANITY, as far as the policy has them."""

ATTRIBUTES: Final = (*GREATEST, "PROFANITY")

APPROXIMATE: Final = ("SEVERE_TOXICITY", "INSULT", "PROFANITY")
"""Attributes that no output was trained for: a rule of thumb over what there is."""

_LEFT_BY_A_HIT: Final = 0.25
_LEAST_LETTERS: Final = 20  # language.py judges no Latin text with fewer
_TEXT: Final = Columns(("text",), None, None, None, None, None, None, ())


def attributes(
    p: FloatMatrix, hits: npt.NDArray[np.int32], lexicons: Sequence[str]
) -> npt.NDArray[np.float32]:
    """Attributes (n, 7) of probabilities (n, 10) and hits of ``lexicons`` (n, L), each 0 to 1.

    PROFANITY is 1 - 0.25^hits, so 0.75 for one: it orders texts and is no probability. NaN where
    ``p`` is.
    """
    columns = [p[:, [OUTPUTS.index(name) for name in of]].max(axis=1) for of in GREATEST.values()]
    profane = hits[:, [k for k, name in enumerate(lexicons) if name in LEXICONS]].sum(axis=1)
    scored = np.where(np.isnan(p[:, -1]), np.nan, 1 - _LEFT_BY_A_HIT**profane)
    return np.column_stack([*columns, scored]).astype(np.float32)


def analyze(
    texts: Sequence[str], *, triager: Triager, stage: StageName = "model"
) -> list[dict[str, Any]]:
    """A response of the Perspective API for each text, in their order, without ``spanScores``.

    ``stage``: whose probabilities; of the model by default, so that all are of one scale. A text
    that cannot be scored, or whose language the policy does not support, has no
    ``attributeScores`` and a ``status`` that says why. ``detectedLanguages`` is empty for a text
    too short to tell. ``fingerprints``: SHA-256 of what the scores depend on.
    """
    if not texts:
        return []
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    batch = pa.record_batch({"text": pa.array(encoded, pa.large_binary())})
    chunk = records.chunk_of(batch, _TEXT, max_text_bytes=triager.policy.max_text_bytes)
    status = np.array(chunk.texts["status"], np.int8)
    readable = np.flatnonzero(status == Status.ok)
    known = chunk.texts["text"].take(pa.array(readable))
    measured = features.extract(known, triager.lexicons)
    supported = triager.policy.languages
    if triager.policy.unsupported_language == "review" and supported:
        foreign = language.unsupported(known, measured.values, supported)
        status[readable[foreign]] = Status.unsupported_language
    hits = np.zeros((len(texts), measured.hits.shape[1]), np.int32)
    hits[readable] = measured.hits
    p = triager.probabilities(chunk, stage)
    status[(status == Status.ok) & np.isnan(p[:, -1])] = Status.model_failed
    scores = attributes(p, hits, triager.lexicons.names)
    letters = np.zeros(len(texts))
    letters[readable] = measured.values[:, list(FEATURES).index("letters")]
    fingerprints = triager.fingerprints()
    answers = []
    for i, text in enumerate(texts):
        long = letters[i] >= _LEAST_LETTERS
        answer: dict[str, Any] = {"attributeScores": {}, "languages": [*supported]}
        answer["detectedLanguages"] = [language.identify(text)[0]] if long else []
        if status[i] == Status.ok:
            named = zip(ATTRIBUTES, scores[i].tolist(), strict=True)
            answer["attributeScores"] = {
                name: {"summaryScore": {"value": round(value, 6), "type": "PROBABILITY"}}
                for name, value in named
            }
        else:
            answer["status"] = Status(status[i]).name
        answers.append({**answer, "fingerprints": fingerprints})
    return answers
