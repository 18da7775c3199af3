"""Generate the input of ``make demo``, and say how a triage of it did.

    python scripts/make_demo.py demo/input [--rows 50000] [--seed 7]
    python scripts/make_demo.py demo/input --results demo/out/comments demo/out/conversations

The first writes three files in a few seconds: ``comments.parquet`` (flat records, 84 %),
``conversations.parquet`` (nested ones) and ``truth.parquet``, which no triage reads: record_id,
any (bool; null where there is nothing to judge), category (the leading one, null if none) and
kind (how the record was made). The texts come from the seeds of ``demo_seeds``, so the result
shows that everything works together, not how good the filter or the model is on real talk. Equal
arguments give equal bytes. The second reads the decisions of finished runs and prints them
against the truth.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

import demo_seeds as seeds
from disguises import homoglyphs, leet, spaced, starred, stretched, zero_width
from edgemod.words import CATEGORIES

COMMENTS: Final = pa.schema(
    [
        ("id", pa.string()),
        ("thread", pa.string()),
        ("author", pa.string()),
        ("time", pa.timestamp("s", "UTC")),
        ("channel", pa.string()),
        ("text", pa.string()),
    ]
)
CONVERSATIONS: Final = pa.schema(
    [
        ("id", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
    ]
)
TRUTH: Final = pa.schema(
    [
        ("record_id", pa.string()),
        ("any", pa.bool_()),
        ("category", pa.string()),
        ("kind", pa.string()),
    ]
)

COMMENT_SHARE: Final = 0.84
KINDS: Final = {
    "ordinary": 0.734,
    "brief": 0.07,
    "violating": 0.072,
    "obfuscated": 0.025,
    "campaign": 0.014,  # spam posted again and again, with and without small changes
    "hard": 0.05,
    "foreign": 0.025,
    "long": 0.002,
    "nothing": 0.008,
}
"""Shares of the kinds of comments; they add up to 1."""
TALK_KINDS: Final = {"ordinary": 0.82, "hard": 0.05, "violating": 0.12, "nothing": 0.01}
"""Shares of the kinds of conversations."""

CATEGORY_WEIGHTS: Final = dict(zip(CATEGORIES, (9, 18, 7, 9, 6, 14, 6, 7, 24), strict=True))
"""How often each category leads, relative to the others: toxic talk is common, threats rare."""

START: Final = datetime(2024, 3, 1, tzinfo=UTC)


Messages = list[tuple[str, str | None]]
"""The messages of a conversation, as (role, content)."""


@dataclass(frozen=True)
class Made:
    """A generated text and what is true of it; ``violates`` is null where nothing can be."""

    text: str | None
    kind: str
    category: str | None = None

    @property
    def violates(self) -> bool | None:
        """Whether the text violates a policy."""
        return None if self.kind == "nothing" else self.category is not None


class Writer:
    """A seeded author of texts: equal seeds write equal texts."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._campaigns = [self.fill(t) for t in seeds.VIOLATING["spam_scam"] for _ in range(3)]

    def fill(self, template: str) -> str:
        """Fill every {slot}, each with a value of its own."""
        return re.sub(r"\{(\w+)\}", lambda m: self.random.choice(seeds.SLOTS[m[1]]), template)

    def pick(self, weights: Mapping[str, float]) -> str:
        """A key, as often as its weight says."""
        return self.random.choices([*weights], [*weights.values()])[0]

    def comment(self, channel: str) -> Made:
        """One comment of any kind."""
        kind = self.pick(KINDS)
        if kind == "ordinary":
            return Made(self.talk(channel), kind)
        if kind == "long":
            paragraphs = self.random.randint(40, 300)
            return Made("\n\n".join(self.talk(channel) for _ in range(paragraphs)), kind)
        if kind == "campaign":
            return Made(self.campaign(), kind, "spam_scam")
        if kind == "brief":
            return Made(self.fill(self.random.choice(seeds.BRIEF)), kind)
        if kind == "hard":
            return Made(self.worn(self.fill(self.random.choice(seeds.HARD))), kind)
        if kind == "foreign":
            template, foreign_category = self.random.choice(seeds.FOREIGN)
            return Made(plain(self.fill(template)), kind, foreign_category)
        if kind == "nothing":
            return Made(self.random.choice([None, None, "", " ", "\n", "\u200b"]), kind)
        category = self.pick(CATEGORY_WEIGHTS)
        return Made(self.violation(category, disguised=kind == "obfuscated"), kind, category)

    def conversation(self) -> tuple[Messages | None, Made]:
        """The messages, and the truth about the whole."""
        kind = self.pick(TALK_KINDS)
        if kind == "nothing":
            nothing: list[Messages | None] = [None, [], [("user", None)]]
            return self.random.choice(nothing), Made(None, kind)
        exchanges, bot = self.random.choice(
            [(seeds.SUPPORT, "agent"), (seeds.ASSISTANT, "assistant")]
        )
        first = self.random.randrange(len(exchanges) - 2)
        messages: Messages = []
        for asked, answered in exchanges[first : first + self.random.randint(1, 4)]:
            messages += [("user", self.worn(self.fill(asked))), (bot, self.fill(answered))]
        if kind == "ordinary":
            return messages, Made(None, kind)
        at = 2 * self.random.randrange(len(messages) // 2 + 1)
        if kind == "hard":
            messages[at:at] = [("user", self.worn(self.fill(self.random.choice(seeds.HARD))))]
            return messages, Made(None, kind)
        category = self.pick(CATEGORY_WEIGHTS)
        told = self.violation(category, disguised=self.random.random() < 0.15)
        messages[at:at] = [("user", told), (bot, self.random.choice(seeds.REPLIES))]
        return messages, Made(None, kind, category)

    def talk(self, channel: str) -> str:
        """One to three ordinary sentences of a register, perhaps with an opener and a closer."""
        count = self.random.choice((1, 1, 2, 2, 3, 3))
        parts = self.random.sample(seeds.ORDINARY[channel], count)
        if self.random.random() < 0.3:
            parts.insert(0, self.random.choice(seeds.OPENERS))
        if self.random.random() < 0.25:
            parts.append(self.random.choice(seeds.CLOSERS))
        return self.worn(self.fill(" ".join(parts)))

    def violation(self, category: str, *, disguised: bool) -> str:
        """A text that violates a policy, sometimes inside ordinary talk."""
        text = self.fill(self.random.choice(seeds.VIOLATING[category]))
        text = self.disguise(text) if disguised else plain(text)
        around = self.random.random()
        if around < 0.15:
            text = f"{self.talk(self.random.choice([*seeds.ORDINARY]))} {text}"
        elif around < 0.25:
            text = f"{text} {self.fill(self.random.choice(seeds.CLOSERS))}"
        return text if disguised else self.worn(text)

    def campaign(self) -> str:
        """One of a few spam messages: half the time exactly it, else with a small change."""
        text = plain(self.random.choice(self._campaigns))
        if self.random.random() < 0.5:
            return text
        tail = (f" #{self.random.randrange(10_000)}", "!" * self.random.randint(1, 4))
        emoji = self.fill(" {emoji}")
        return self.random.choice([text + tail[0], text + tail[1], text + emoji, text.upper()])

    def disguise(self, template: str) -> str:
        """Write every *marked* word around a filter, one way for the whole text."""
        way = self.random.choice((leet, homoglyphs, zero_width, spaced, stretched, starred))
        if "*" not in template:
            return leet(template)
        return re.sub(r"\*([^*]+)\*", lambda m: way(m[1]), template)

    def worn(self, text: str) -> str:
        """As people type: lower case, missing stops, a swapped letter, an emoji."""
        chance = self.random.random
        if chance() < 0.4:
            text = text.lower()
        if chance() < 0.35:
            text = text.removesuffix(".")
        if chance() < 0.08 and len(text) > 12:
            at = self.random.randrange(len(text) - 2)
            text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        if chance() < 0.06:
            text += self.fill(" {emoji}")
        return text


def plain(text: str) -> str:
    """The text without the marks around words to disguise."""
    return text.replace("*", "")


def make(rows: int, seed: int) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Return ``rows`` records as comments and conversations, and the truth about all of them."""
    writer = Writer(seed)
    comments, truth = [], []
    channels = [*seeds.ORDINARY] * (rows // 90 + 1)
    threads = [(f"th{i:05d}", channel) for i, channel in enumerate(channels)]
    time = START
    for i in range(round(rows * COMMENT_SHARE)):
        thread, channel = writer.random.choice(threads)
        made = writer.comment(channel)
        author = f"u{int(writer.random.lognormvariate(6, 1.5)) % 10_000:04d}"  # some write a lot
        time += timedelta(seconds=round(writer.random.expovariate(1 / 40)))
        comments.append((f"c{i:06d}", thread, author, time, channel, made.text))
        truth.append((f"c{i:06d}", made.violates, made.category, made.kind))
    conversations = []
    for i in range(rows - len(comments)):
        messages, made = writer.conversation()
        nested = None
        if messages is not None:
            nested = [{"role": role, "content": content} for role, content in messages]
        conversations.append((f"t{i:06d}", nested))
        truth.append((f"t{i:06d}", made.violates, made.category, made.kind))
    return _table(comments, COMMENTS), _table(conversations, CONVERSATIONS), _table(truth, TRUTH)


def results(folder: Path, outs: Sequence[Path]) -> str:
    """Return the decisions of finished runs against the truth, as a table in plain text."""
    truth = pq.read_table(folder / "truth.parquet")
    decided = pa.concat_tables(
        ds.dataset(out / "decisions", format="parquet").to_table(columns=["record_id", "verdict"])
        for out in outs
    )
    verdicts = dict(zip(*(column.to_pylist() for column in decided.columns), strict=True))
    counts: Counter[tuple[str, str]] = Counter()
    for row in truth.to_pylist():
        verdict = verdicts.get(row["record_id"], "missing")
        counts[row["category"] or f"fine: {row['kind']}", verdict] += 1
    lines = [f"{'what it is':18}{'clear':>8}{'review':>8}{'flag':>8}"]
    for name in sorted({name for name, _ in counts}, key=lambda name: (":" in name, name)):
        cells = "".join(f"{counts[name, verdict]:8,}" for verdict in ("clear", "review", "flag"))
        lines.append(f"{name:18}{cells}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the input is written")
    parser.add_argument("--rows", type=int, default=50_000, help="records (default: 50000)")
    parser.add_argument("--seed", type=int, default=7, help="equal seeds, equal files (default: 7)")
    parser.add_argument("--results", type=Path, nargs="+", metavar="OUT", help="finished runs")
    options = parser.parse_args(arguments)
    if options.results:
        print(results(options.folder, options.results))
        print("(texts made from templates and disguised on purpose: no measure of accuracy)")
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    tables = make(options.rows, options.seed)
    for name, table in zip(("comments", "conversations", "truth"), tables, strict=True):
        pq.write_table(table, options.folder / f"{name}.parquet", compression="zstd")
    print(
        f"{options.folder}: {tables[0].num_rows:,} comments, {tables[1].num_rows:,} conversations"
    )


def _table(rows: Sequence[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[] for _ in schema]
    arrays = [pa.array(list(c), f.type) for c, f in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema=schema)


if __name__ == "__main__":
    main()
