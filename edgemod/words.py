"""The vocabulary of edgemod: every name that travels between modules, files and people.

One word per thing. Code, columns, messages and documents use these and no synonyms.
Nothing here computes, but for how a number of things is said; importing it is free.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

CATEGORIES: Final = (
    "hate",
    "harassment",
    "threat_violence",
    "sexual",
    "self_harm",
    "spam_scam",
    "illicit",
    "pii",
    "toxic",
)
"""Kinds of harm a policy can name, in the column order of every score matrix."""

ANY: Final = "any"
"""The tenth output of every model: the record violates some category, whichever it is."""

OUTPUTS: Final = (*CATEGORIES, ANY)
"""Columns of every score and probability matrix, shape (n, 10)."""


class Verdict(IntEnum):
    """What happens to a record. Ordered: the greatest of a conversation's messages is its own."""

    clear = 0
    review = 1
    flag = 2


class Stage(IntEnum):
    """What settled a record."""

    status = 0  # it could not be scored; see Status
    rule = 1
    filter = 2
    model = 3
    duplicate = 4  # same text as an earlier record of its chunk, whose decision it takes


class Status(IntEnum):
    """Whether a text could be scored, and if not, why. Everything but ``ok`` goes to review."""

    ok = 0
    null_text = 1
    empty_text = 2  # no character but white space and controls
    not_utf8 = 3  # a binary column, or a file, that is not UTF-8
    too_long = 4  # over the policy's max_text_bytes
    unsupported_language = 5
    unreadable = 6  # its row group or file could not be decoded
    model_failed = 7  # the language model could not score it
    failed = 8  # scoring it, or records beside it, failed each time it was tried
    crashed = 9  # scoring it alone ended, or hung, the process each time: quarantined


STATUS_REASONS: Final = {
    Status.null_text: "not scored: the text is null",
    Status.empty_text: "not scored: the text is empty",
    Status.not_utf8: "not scored: the text is not valid UTF-8",
    Status.too_long: "not scored: the text is longer than the policy's limit",
    Status.unsupported_language: "not settled: the language is not one the policy supports",
    Status.unreadable: "not scored: this part of the input could not be decoded",
    Status.model_failed: "not scored: the language model failed on this text",
    Status.failed: "not scored: scoring this part of the input failed each time",
    Status.crashed: "not scored: scoring this record failed, crashed or hung each time",
}

FEATURES: Final[dict[str, str]] = {
    "bytes": "length in UTF-8 bytes",
    "chars": "length in code points",
    "words": "runs of letters or digits",
    "upper": "share of cased letters that are upper case, 0 to 1",
    "digits": "share of characters that are decimal digits, 0 to 1",
    "punctuation": "share of characters that are ASCII punctuation, 0 to 1",
    "non_ascii": "share of characters outside ASCII, 0 to 1",
    "latin": "share of letters in the Latin script, 0 to 1 (1 where there are no letters)",
    "letters": "letters of any script",
    "emoji": "emoji",
    "entropy": "Shannon entropy of the bytes, bits per byte, 0 to 8",
    "longest_run": "longest run of one repeated character",
    "repeated_words": "share of words that occurred earlier in the same text, 0 to 1",
    "exclamations": "exclamation marks",
    "questions": "question marks",
    "links": "web addresses (with a scheme, or www.)",
    "link_share": "share of bytes inside web addresses, 0 to 1",
    "mentions": "@names",
    "hashtags": "#tags",
    "emails": "e-mail addresses",
    "phones": "telephone numbers (9 to 15 digits, written as one)",
    "ips": "IPv4 addresses (four parts of 0 to 255) and IPv6 addresses",
    "cards": "payment card numbers (13 to 19 digits that pass the Luhn check)",
    "ibans": "IBANs that pass the mod 97 check",
    "national_ids": "national identity numbers (US SSN with valid area, UK National Insurance)",
    "second_person": "words addressed to the reader: you, your, u, ur, ...",
    "first_person": "I, me, my, we, ...",
    "negations": "not, never, n't, ...",
    "quoted": "share of characters inside quotation marks or quoted lines, 0 to 1",
    "reported": "reported speech: said, called me, told me, tweeted, ...",
    "invisible": "characters without ink: zero-width, bidirectional, control, filler",
    "homoglyphs": "letters of another script standing in for Latin ones inside a Latin word",
    "leet": "digits and symbols standing in for letters inside words",
    "spelled_out": "words written one letter at a time (h a t e, h-a-t-e)",
    "stretched": "words with a letter three or more times running (sooo)",
    "combining": "combining marks",
}
"""Features a rule may compare, in column order; each is a float32 per text."""

OPERATORS: Final = (">=", "<=", ">", "<", "==", "!=")

NO_GROUP: Final = "(none)"
"""The group, or stratum, of records that have none."""


def counted(n: int, one: str, many: str = "") -> str:
    """So many of a thing, for people: ``1 record``, ``2,000 records``; ``many``: its plural."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
