"""The labelled texts that every training script shares, read one way.

``load_train``        data/train: the sets of ``SETS`` below. Trains the filter and the head.
``load_weak_topics``  data/archive/reddit_weak_topics: subreddits as weak labels, low weights.
``load_written``      scripts/written: texts written for this project.
``load_dev``          data/dev: for measuring only. Nothing may be trained or tuned on it.

Rows marked ``holdout`` (about one in ten, by a hash of the text) are nobody's training data:
calibration maps and thresholds are fitted on them. The hash sees the letters alone, so copies of
a text that differ in case, numbers, spacing or punctuation fall on the same side, whichever set
they come from.

A label is 1, 0 or -1 (unknown). Unknown is never negative, with two exceptions that follow
from what the words mean: ordinary talk that nobody annotated (``presumed_benign``) is 0 for
everything, and a text that violates no category (``any`` is 0) violates none in particular.
A violation of some category is a violation: ``any`` is 1 where a category is 1.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import assistant_cases
import disguises
import hard_cases
from assistant_cases import ASSISTANT_SLOTS
from edgemod.calibration import APART
from edgemod.words import ANY, CATEGORIES, OUTPUTS

SET_LIMIT: Final = 8_000
"""Rows a set counts for at most: larger sets are weighted down to this total."""

WEAK_NEGATIVE: Final = 0.5
WEAK_POSITIVE: Final = 0.3
"""Weights of weakly labelled rows. Negatives count for more: they are what archives hold."""

HOLDOUT_BYTES: Final = 26
"""First bytes of the SHA-1 (of 256) that fall into the holdout: 10.2 %."""


@dataclass(frozen=True)
class Set:
    """How one training set is used: ``weight`` of a row, 0 leaves the set out.

    ``broad``: where all labels that the set knows are 0, the text is taken to be harmless.
    """

    weight: float
    broad: bool
    reason: str


SETS: Final = {
    "ailuminate_demo_prompts": Set(1.0, False, "only positives; mild wording in places"),
    "benign_banking77": Set(1.0, True, "customer service: hard negatives for scams"),
    "benign_clinc150": Set(0.5, True, "short assistant queries, repetitive"),
    "catqa": Set(1.0, False, "only positives"),
    "certified_safety_prompts": Set(1.0, True, "requests, harmful and safe, of one style"),
    "cold_zh": Set(0.0, False, "Chinese: the default policy supports English"),
    "context_toxicity": Set(1.0, True, "Wikipedia talk at its natural base rate"),
    "convabuse": Set(1.0, True, "abuse of chat bots, several expert raters"),
    "davidson": Set(0.5, True, "lexicon sampled, known dialect bias, 83 % toxic"),
    "diasafety": Set(0.3, True, "labels depend on a context that is not read here"),
    "edos": Set(1.0, False, "only sexism was annotated"),
    "fox_news_comments": Set(1.0, False, "only hate was annotated"),
    "gptfuzz_prompts": Set(1.0, False, "harmful questions; templates are left out"),
    "gptfuzz_responses": Set(0.3, True, "model answers: complied or refused"),
    "hatemoji_build": Set(1.0, False, "contrast pairs: not hateful may still be rude"),
    "hatexplain": Set(0.7, True, "offensive against normal is noisy (agreement 0.46)"),
    "inthewild_jailbreak": Set(0.0, False, "role-play frames, a share of them harmless"),
    "jigsaw_wiki_binary": Set(1.0, True, "toxic covers insults, threats, hate, obscenity"),
    "jigsaw_wiki_multilabel": Set(1.0, True, "six labels on every row"),
    "multijail": Set(1.0, False, "only positives"),
    "online_misogyny": Set(1.0, False, "only misogyny was annotated"),
    "presidio_synth_pii": Set(0.5, True, "made from templates, otherwise harmless"),
    "reddit_cssrs": Set(0.0, False, "all posts of a user joined: no text has the label"),
    "sms_smishing": Set(1.0, True, "ham is everyday messages"),
    "sms_spam": Set(1.0, True, "ham is everyday messages"),
    "tg_spam": Set(1.0, False, "a moderated group, mostly Russian"),
    "threatgram": Set(0.7, False, "noisy; no threat may still be toxic"),
    "toxic_spans_semeval": Set(1.0, False, "only positives"),
}
"""Every set of data/train. Notes on each are in data/MANIFEST.json."""

_NARROW: Final = {"edos": "sexism", "online_misogyny": "misogyny"}
"""Sets of which only one kind of hate was annotated, and the column that says whether it is there.
Where it is not, most texts are not hateful either: a weak label for ``hate``."""

_LEFT_OUT: Final = {
    # What an assistant should not advise on is not what a moderator should remove.
    "diasafety": ("category", ("Unauthorized Expertise", "Risk Ignorance")),
    # A frame without the request it is meant to carry.
    "gptfuzz_prompts": ("kind", ("jailbreak template",)),
}
"""set -> (key of its original label, values whose rows are left out)."""

_PLACEHOLDERS: Final = {
    "<user>": "@user",
    "[USER]": "@user",
    "<url>": "http://url",
    "[URL]": "http://url",
    "<number>": "0",
}
"""What publishers put in the place of names, and what other texts have there: a mark of one set
would stand in for its labels."""

_QUIET: Final = ("hate", "threat_violence", "sexual", "self_harm", "spam_scam", "illicit", "pii")
"""What hardly any post of a quiet topic is. It may be rude all the same: models that were told
otherwise ranked rude talk elsewhere worse (docs/models.md)."""

_TOPICS: Final[tuple[tuple[str, dict[str, int]], ...]] = (
    (
        "techsupport talesfromtechsupport TalesFromRetail legaladvice personalfinance penpals "
        "AskMen AskWomen relationships relationship_advice tifu lockpicking netsec polyamory",
        dict.fromkeys(_QUIET, 0),
    ),
    (  # Pictures: titles only, short, some of them suggestive.
        "feet happygirls hotties nextdoorasians AsianCuties",
        {"hate": 0, "threat_violence": 0, "self_harm": 0, "spam_scam": 0, "illicit": 0, "pii": 0},
    ),
    (  # Offers of goods and of company.
        "Gunsforsale r4r DeadBedrooms",
        {"hate": 0, "harassment": 0, "threat_violence": 0, "toxic": 0, "self_harm": 0},
    ),
    (  # Ordinary talk among groups that hate is aimed at: naming a group is not hate.
        "asktransgender askgaybros lgbt gaymers TwoXChromosomes",
        {"hate": 0, "harassment": 0, "threat_violence": 0, "toxic": 0, "spam_scam": 0},
    ),
    (  # Low spirits are not intent, but posts about suicide are among these: self_harm unknown.
        "Anxiety bipolar depression MMFB offmychest",
        {"hate": 0, "harassment": 0, "threat_violence": 0, "toxic": 0, "sexual": 0},
    ),
    ("SuicideWatch", {"self_harm": 1, ANY: 1, "hate": 0, "harassment": 0, "spam_scam": 0}),
    (
        "sex TwoXSex sexpertslounge SexPositive",
        {"sexual": 1, ANY: 1, "hate": 0, "threat_violence": 0, "spam_scam": 0},
    ),
    (
        "Drugs LSD opiates SilkRoad",
        {"illicit": 1, ANY: 1, "hate": 0, "sexual": 0, "threat_violence": 0},
    ),
    ("MeanJokes", {"hate": 1, "toxic": 1, ANY: 1}),
)
REQUESTS: Final = (
    "ailuminate_demo_prompts",
    "benign_clinc150",
    "catqa",
    "certified_safety_prompts",
    "gptfuzz_prompts",
    "multijail",
    "questions",
    "requests",
    "written/cyber",
    "written/everyday",
    "written/request_contrasts",
    "written/request_pairs",
    "written/requests",
    "written/technical",
)
"""Sets of requests to an assistant, which ``frame`` puts into frames."""

WRITTEN: Final = Path(__file__).parent / "written"
"""Texts that a language model wrote for this project, harmless and violating ones paired in style:
a file a subject, a line a text, its labels before the tab. No published set was a source."""

_OVERLAPPING: Final = ("harassment", "pii", "toxic", ANY)
"""What may hold for a violating text of ``WRITTEN`` although its line does not say so."""

WEAK_TOPICS: Final = {topic: labels for topics, labels in _TOPICS for topic in topics.split()}
"""Subreddit -> weak labels. Topics with no clear reading (4chan, TheRedPill) are left out."""

QUIET_TOPICS: Final = tuple(_TOPICS[0][0].split())
"""The first of them, which are about nothing that a policy names."""


@dataclass(frozen=True)
class TrainingData:
    """n labelled texts."""

    texts: list[str]
    labels: npt.NDArray[np.int8]
    """(n, 10), columns ``words.OUTPUTS``: 1 violates, 0 does not, -1 unknown."""
    sets: npt.NDArray[np.str_]
    """(n,) the set that each row came from."""
    weights: npt.NDArray[np.float32]
    """(n,) how much a row counts in training, greater than 0."""
    holdout: npt.NDArray[np.bool_]
    """(n,) rows that nobody trains on."""

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> TrainingData:
        """The rows of a mask or of indices."""
        index = np.arange(len(self.texts))[rows]
        return TrainingData(
            [self.texts[i] for i in index],
            self.labels[index],
            self.sets[index],
            self.weights[index],
            self.holdout[index],
        )

    def arrow(self) -> pa.LargeStringArray:
        """The texts as the rest of edgemod takes them."""
        return pa.array(self.texts, type=pa.large_string())


def concatenate(parts: Sequence[TrainingData]) -> TrainingData:
    """All rows of the parts, in order."""
    return TrainingData(
        [text for part in parts for text in part.texts],
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.sets for part in parts]),
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.holdout for part in parts]),
    )


def canonical(text: str) -> str:
    """The letters of the text without case: what the holdout hash sees."""
    return "".join(filter(str.isalpha, text.casefold())) or text


def in_holdout(texts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which texts nobody trains on, shape (n,)."""
    digests = (hashlib.sha1(canonical(t).encode("utf-8", "replace")).digest() for t in texts)
    return np.fromiter((digest[0] < HOLDOUT_BYTES for digest in digests), bool, len(texts))


def load_train(data: Path) -> TrainingData:
    """The training sets of ``data``/train, in the order of ``SETS``.

    Left out: sets of weight 0, languages other than English, rows with no known label, and
    copies of a text within its set.
    """
    parts = []
    for name, use in SETS.items():
        if use.weight == 0:
            continue
        table = pq.read_table(data / "train" / f"{name}.parquet")
        table = table.filter(pc.equal(table["lang"], "en"))
        key, values = _LEFT_OUT.get(name, ("", ()))
        if key:
            original = [json.loads(x).get(key) for x in table["orig_label"].to_pylist()]
            table = table.filter(pa.array([value not in values for value in original]))
        part = _read(table, name, broad=use.broad)
        labels = part.labels
        without = np.zeros(len(part.texts), bool)
        if name in _NARROW:
            without = _column(table, _NARROW[name]) == 0
            labels[without & (labels[:, 0] == -1), 0] = 0
        labels[(labels[:, -1] == 0)[:, None] & (labels == -1)] = 0
        squeezed = [" ".join(text.casefold().split()) for text in part.texts]
        first = {text: i for i, text in reversed(list(enumerate(squeezed)))}
        keep = np.zeros(len(part.texts), bool)
        keep[list(first.values())] = True
        keep &= (labels != -1).any(axis=1)
        part = part.take(keep)
        part.weights[:] = use.weight * min(1.0, SET_LIMIT / max(len(part.texts), 1))
        part.weights[without[keep]] *= WEAK_NEGATIVE
        parts.append(part)
    return concatenate(parts)


def load_weak_topics(data: Path) -> TrainingData:
    """Posts (title, new line, body) whose subreddit is a weak label; see ``WEAK_TOPICS``.

    Where no label of a topic is 1, the title of a longer post is a row of its own as well:
    most posts of an archive are no more than a title.
    """
    table = pq.read_table(data / "archive" / "reddit_weak_topics.parquet")
    table = table.filter(pc.is_in(table["subreddit"], pa.array(list(WEAK_TOPICS))))
    texts, topics = posts(table), table["subreddit"].to_pylist()
    for row, title in enumerate(table["title"].to_pylist()):
        if 1 not in WEAK_TOPICS[topics[row]].values() and title.strip() != texts[row]:
            texts.append(title)
            topics.append(topics[row])
    labels = np.array([[WEAK_TOPICS[t].get(o, -1) for o in OUTPUTS] for t in topics], np.int8)
    positive = (labels == 1).any(axis=1)
    return TrainingData(
        texts,
        labels,
        np.array([f"reddit/{topic}" for topic in topics]),
        np.where(positive, WEAK_POSITIVE, WEAK_NEGATIVE).astype(np.float32),
        in_holdout(texts),
    )


def load_written() -> TrainingData:
    """The texts of ``WRITTEN``; each file is a set, ``written/NAME``."""
    texts, labels, sets = [], [], []
    for path in sorted(WRITTEN.glob("*.tsv")):
        for line in path.read_text("utf-8").rstrip("\n").split("\n"):
            named, text = line.split("\t")
            row = np.zeros(len(OUTPUTS), np.int8)
            if named != "harmless":
                row[[OUTPUTS.index(name) for name in _OVERLAPPING]] = -1
                row[[OUTPUTS.index(name) for name in (*named.split(","), ANY)]] = 1
            texts.append(text.replace("\\n", "\n"))
            labels.append(row)
            sets.append(f"written/{path.stem}")
    return TrainingData(
        texts,
        np.array(labels, np.int8),
        np.array(sets),
        np.ones(len(texts), np.float32),
        in_holdout(texts),
    )


def is_weak(data: TrainingData) -> npt.NDArray[np.bool_]:
    """Rows that no person labelled as they stand, (n,)."""
    made = np.isin(data.sets, ("joined", "buried"))
    return np.asarray(np.char.startswith(data.sets, "reddit/") | made)


def without_apart(data: TrainingData) -> npt.NDArray[np.int8]:
    """The labels to learn ``any`` from: unknown for what violates only as spam or personal data.

    Advertising and addresses have nothing in common with abuse; one output that answered for all
    of them would answer for none. Calibration puts them together again. The threats of one noisy
    set, half of them slogans, say nothing about ``any`` either.
    """
    labels = data.labels.copy()
    others = [k for k, name in enumerate(CATEGORIES) if name not in APART]
    columns = [OUTPUTS.index(name) for name in APART]
    only = (labels[:, columns] == 1).any(axis=1) & ~(labels[:, others] == 1).any(axis=1)
    labels[only | (data.sets == "threatgram"), -1] = -1
    return labels


def load_hard_cases(per_pattern: int, seed: int) -> TrainingData:
    """The hand-written patterns of hard_cases.py and assistant_cases.py, filled."""
    return concatenate(
        [
            _filled("hard_cases", hard_cases.PATTERNS, hard_cases.SLOTS, per_pattern, seed),
            _filled("requests", assistant_cases.REQUESTS, ASSISTANT_SLOTS, per_pattern, seed),
            _filled("replies", assistant_cases.REPLIES, ASSISTANT_SLOTS, per_pattern, seed),
        ]
    )


def _filled(
    name: str, patterns: hard_cases.Patterns, slots: Mapping[str, str], per_pattern: int, seed: int
) -> TrainingData:
    texts, labels = zip(*hard_cases.cases(patterns, slots, per_pattern, seed), strict=True)
    rows = [[one.get(output, -1) for output in OUTPUTS] for one in labels]
    return TrainingData(
        list(texts),
        np.array(rows, np.int8),
        np.full(len(texts), name),
        np.ones(len(texts), np.float32),
        np.zeros(len(texts), bool),
    )


def frame(data: TrainingData, count: int, seed: int) -> TrainingData:
    """``REQUESTS`` with what people put around a request; as many harmful as harmless.

    Labels stay. A frame around requests of one kind only would stand in for the label.
    """
    random = np.random.default_rng(seed)
    usable = np.isin(data.sets, REQUESTS)
    part = _both_kinds(data, usable, count, random)
    for i, text in enumerate(part.texts):
        for _ in range(random.integers(1, 3)):
            text = random.choice(assistant_cases.FRAMES).replace("{text}", text)
        part.texts[i] = str(text)
    return _made(part, "framed", 1.0)


def _both_kinds(
    data: TrainingData, usable: npt.NDArray[np.bool_], count: int, random: np.random.Generator
) -> TrainingData:
    """``count`` rows of a mask drawn by weight, half of them harmless and half violating."""
    chosen = []
    for label in (0, 1):
        rows = np.flatnonzero(usable & (data.labels[:, -1] == label))
        weight = data.weights[rows] / data.weights[rows].sum()
        chosen.append(random.choice(rows, count // 2, p=weight))
    return data.take(np.concatenate(chosen))


def _made(part: TrainingData, name: str, weight: float) -> TrainingData:
    """The rows as a set of their own."""
    count = len(part.texts)
    weights = np.full(count, weight, np.float32)
    return replace(part, sets=np.full(count, name), weights=weights)


_SENTENCES: Final = re.compile(r"(?<=[.!?\n])\s+")


def bury(data: TrainingData, count: int, seed: int) -> TrainingData:
    """Short rows put between the sentences of harmless texts of 100 to 900 characters.

    One bad sentence makes a text violate, whatever is around it. Every other time the short row is
    harmless, too, so that a change of subject says nothing. Where its text is harmless and the row
    is not, what the row violates is known and the rest is what both are known not to.
    """
    random = np.random.default_rng(seed)
    size = np.array([len(text) for text in data.texts])
    anything = data.labels[:, -1]
    hosts = np.flatnonzero((anything == 0) & (size >= 100) & (size <= 900))
    brief = ~is_weak(data) & (size >= 8) & (size <= 200)
    texts, labels = [], []
    for label in (0, 1):
        rows = np.flatnonzero(brief & (anything == label))
        for guest, host in zip(
            random.choice(rows, count // 2, p=data.weights[rows] / data.weights[rows].sum()),
            random.choice(hosts, count // 2, p=data.weights[hosts] / data.weights[hosts].sum()),
            strict=True,
        ):
            sentences = _SENTENCES.split(data.texts[host])
            sentences.insert(random.integers(len(sentences) + 1), data.texts[guest])
            texts.append(" ".join(sentences))
            both = np.minimum(data.labels[host], data.labels[guest])  # -1 if either is unknown
            labels.append(np.where(data.labels[guest] == 1, 1, both))
    return TrainingData(
        texts,
        np.array(labels, np.int8),
        np.full(len(texts), "buried"),
        np.ones(len(texts), np.float32),
        np.zeros(len(texts), bool),
    )


_EVERYDAY: Final = """
    😀 😂 🤣 😊 😍 🥰 😎 🤔 🙄 😭 😅 🙏 👍 👏 💪 🎉 🎂 🎁 🔥 ✨ 💯 ❤️ 💙 💚 🌈 ☀️ 🌸 🍕 🍔 🍟 🍺 ☕
    🐶 🐱 🐒 🐷 🐍 🐀 ⚽ 🏆 🎵 📷 📈 🚀 ✅ ❌ ⚠️ ➡️ 🇺🇸 🇬🇧 🇮🇹 🇫🇷 🇩🇪 🇮🇳 🇳🇬 🇵🇰 🇲🇽 🇮🇱 🇵🇸
    👩🏿 👨🏻 👵🏽 🧕 👮 👶
"""


def decorate(data: TrainingData, count: int, seed: int) -> TrainingData:
    """Harmless rows with everyday emoji: the sets hold few that are not part of an attack."""
    random = np.random.default_rng(seed)
    harmless = np.flatnonzero((data.labels[:, -1] == 0) & (data.labels[:, 0] == 0))
    rows = random.choice(harmless, count, p=data.weights[harmless] / data.weights[harmless].sum())
    part = data.take(rows.astype(np.int64))
    for i, text in enumerate(part.texts):
        emoji = "".join(random.choice(_EVERYDAY.split(), random.integers(1, 5)))
        part.texts[i] = f"{emoji} {text}" if random.random() < 0.3 else f"{text} {emoji}"
    return _made(part, "decorated", 0.5)


def disguised(data: TrainingData, count: int, seed: int) -> TrainingData:
    """Rows of up to 600 characters with a part of their words written around a filter.

    As many harmless as violating: a disguise is not the offence.
    """
    random = np.random.default_rng(seed)
    brief = np.array([len(text) <= 600 for text in data.texts])
    part = _both_kinds(data, brief, count, random)
    for i, text in enumerate(part.texts):
        part.texts[i] = disguises.disguise(text, random, random.uniform(0.2, 0.7), disguises.WAYS)
    return _made(part, "disguised", 1.0)


def load_dev(data: Path) -> dict[str, TrainingData]:
    """The sets of ``data``/dev by name, with the labels they state. For measuring only."""
    return {
        path.stem: _read(pq.read_table(path), path.stem, broad=False)
        for path in sorted((data / "dev").glob("*.parquet"))
    }


def posts(table: pa.Table) -> list[str]:
    """The texts of an archive table: title, new line, body where there is one."""
    pairs = zip(table["title"].to_pylist(), table["body"].to_pylist(), strict=True)
    return [f"{title or ''}\n{body or ''}".strip() for title, body in pairs]


def _read(table: pa.Table, name: str, *, broad: bool) -> TrainingData:
    """The labels a table states, and ``any``, with weight 1."""
    texts = table["text"].to_pylist()
    for placeholder, usual in _PLACEHOLDERS.items():
        texts = [text.replace(placeholder, usual) for text in texts]
    categories = np.stack([_column(table, name) for name in CATEGORIES], axis=1)
    anything = _column(table, "unsafe")
    none_violated = (categories == 0).any(axis=1) & (categories != 1).all(axis=1)
    if broad:
        anything[(anything == -1) & none_violated] = 0
    anything[(categories == 1).any(axis=1)] = 1
    labels = np.column_stack((categories, anything))
    labels[_column(table, "presumed_benign") == 1] = 0
    return TrainingData(
        texts,
        labels,
        np.full(len(texts), name),
        np.ones(len(texts), np.float32),
        in_holdout(texts),
    )


def _column(table: pa.Table, name: str) -> npt.NDArray[np.int8]:
    """An int8 label column, -1 where it is null or absent."""
    if name not in table.column_names:
        return np.full(table.num_rows, -1, np.int8)
    column = pc.fill_null(table[name].cast(pa.int8()), -1)
    return np.asarray(column.to_numpy(), dtype=np.int8).copy()
