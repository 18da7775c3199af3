"""Slow, obvious twins of the kernels: plain Python over strings, one rule after another."""

from __future__ import annotations

import ipaddress
import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from edgemod.kernels import pii, shingles, tables

LINK = re.compile(
    r"(?:www\.|ftp://|h(?:tt|xx)ps?://)(?=[A-Za-z0-9])[!-~]*", re.IGNORECASE | re.ASCII
)
ENDS = re.compile(r'["()<>\[\\\]^`{|}]')
ENTITY = re.compile(
    r"&(?:amp;)?(?:(lt|gt|quot|#39|nbsp|#x200b);)|&(?:amp;)?", re.IGNORECASE | re.ASCII
)
MEANING = {"lt": "<", "gt": ">", "quot": '"', "#39": "'", "nbsp": " ", "#x200b": "\u200b"}
ALNUM = frozenset(string.ascii_letters + string.digits)
LETTERS = frozenset(string.ascii_letters)


class Properties(NamedTuple):
    form: str
    kind: int
    resembles: str
    flags: int


def properties(char: str) -> Properties:
    """What tables.py says of a character, decoded."""
    code = ord(char)
    entry = int(tables.ENTRIES[int(tables.PAGES[code >> 8]) << 8 | code & 255])
    kind = entry >> tables.CLASS_SHIFT & 7
    size = entry >> tables.SIZE_SHIFT & 7
    form = (entry & 0xFFFFFFFF).to_bytes(4, "little")[:size].decode()
    if size == 0 and kind != tables.DROP:
        form = char
    letter = entry >> tables.RESEMBLES_SHIFT & 127
    return Properties(form, kind, chr(letter) if letter else "", entry)


def link_at(text: str, i: int) -> int:
    """End of the link at ``i``, or ``i``."""
    found = LINK.match(text, i)
    if not found or (i and text[i - 1] in ALNUM):
        return i
    link = ENDS.split(found[0])[0]
    return i + len(link.rstrip(".,;:!?'*_~"))


def address(link: str) -> str:
    """The host of a link in lower case, and the words behind it."""
    rest = re.sub(r"^(?:ftp|h(?:tt|xx)ps?)://", "", link, flags=re.IGNORECASE)
    rest = re.sub(r"^www\.(?=[A-Za-z0-9])", "", rest, flags=re.IGNORECASE)
    host = re.split(r"[/?#:]", rest)[0]
    path = re.findall("[A-Za-z0-9]+", rest[len(host) :])
    words = [run for run in path if re.fullmatch("[A-Za-z]?[a-z]+|[A-Z]+", run) and len(run) > 1]
    return " ".join([host, *words]).lower()


def symbol(text: str, i: int, after_letter: bool, in_word: bool) -> str:
    """What ! @ or $ stands for: a letter, \x02 for a mention, or itself."""
    char, follower = text[i], text[i + 1 : i + 2]
    letter = follower in LETTERS and follower != ""
    if char == "!" and after_letter and letter:
        return "i"
    if char == "$" and after_letter and (letter or follower == "$" or text[i - 1] == "$"):
        return "s"
    if char == "$" and not in_word and follower.isascii() and follower.islower():
        return "s"
    if char == "@" and after_letter and letter:
        email = re.match(r"[A-Za-z0-9-]*\.[A-Za-z0-9]", text[i + 1 :])
        return "@" if email else "a"
    if char == "@" and not in_word and follower and (follower in ALNUM or follower == "_"):
        return "a" if text[i + 1 : i + 3].lower() == "ss" else "\x02"
    return char


def undo_leet(word: str) -> str:
    if len(word.encode()) > 14 or word[0] in string.digits:
        return word
    if re.fullmatch(rb".4.", word.encode(), re.DOTALL):
        return word
    meaning = str.maketrans("013457", "oieast")
    undone = re.sub(
        r"(?<=[a-z])[013457]{1,2}(?=[a-z])", lambda found: found[0].translate(meaning), word
    )
    if undone != word:
        undone = re.sub(r"(?<=[a-z])[013457]\Z", lambda found: found[0].translate(meaning), undone)
    return undone


def mostly_latin(text: str) -> bool:
    flags = [properties(char).flags for char in text]
    letters = sum(flag & tables.IS_LETTER != 0 for flag in flags)
    return 2 * sum(flag & tables.IS_LATIN != 0 for flag in flags) > letters


def unmask(word: str, text: str) -> str:
    looks = [properties(char).resembles for char in word]
    if not any(looks) or any(not (c.isascii() or r) for c, r in zip(word, looks, strict=True)):
        return word
    if any(char in LETTERS for char in word) or mostly_latin(text):
        return "".join(r or c for c, r in zip(word, looks, strict=True))
    return word


def join_spelled(text: str) -> tuple[str, int]:
    def wordlike(char: str) -> bool:
        return char == "'" or properties(char).kind >= tables.LETTER

    def single(i: int) -> bool:
        return (
            properties(text[i]).kind == tables.LETTER
            and not (i > 0 and wordlike(text[i - 1]))
            and not (i + 1 < len(text) and wordlike(text[i + 1]))
        )

    out, joined, i = "", 0, 0
    while i < len(text):
        letters = [i] if single(i) else []
        spacer = text[i + 1 : i + 2]
        if spacer and not spacer.isascii():
            spells = properties(spacer).kind == tables.OTHER
        else:
            spells = spacer != "" and spacer in ".-_*/,|~+:^=; \x03"
        if letters and spells:
            while (
                letters[-1] + 2 < len(text)
                and text[letters[-1] + 1] == spacer
                and single(letters[-1] + 2)
            ):
                letters.append(letters[-1] + 2)
        word = "".join(text[k] for k in letters)
        spare = spacer in (" ", "\x03") and set(word) <= set("abciknoruy")
        if len(word) > 3 or (len(word) == 3 and not spare):
            out += word
            joined += 1
            i = letters[-1] + 1
        else:
            out += text[i]
            i += 1
    return out, joined


def normalise(text: str, keep: int = 2) -> tuple[str, dict[str, int]]:
    """The normal form, and what was undone on the way."""
    counts = dict.fromkeys(("mentions", "homoglyphs", "leet", "spelled_out", "stretched"), 0)
    items: list[tuple[str, int]] = []  # form and kind; a link is one item of kind -1
    i = 0
    while i < len(text):
        last = items[-1][1] if items else tables.SPACE
        char, size = text[i], 1
        if link_at(text, i) > i:
            stop = link_at(text, i)
            items.append(("\x01" + address(text[i:stop]), -1))
            i = stop
            continue
        if char == "&":
            found = ENTITY.match(text, i)
            assert found
            char, size = MEANING.get((found[1] or "").lower(), "&"), len(found[0])
        elif char in "!@$":
            char = symbol(text, i, last == tables.LETTER, last >= tables.LETTER)
            counts["leet"] += char in LETTERS
            counts["mentions"] += char == "\x02"
        known = properties(char)
        if char == "\x02" and text[i] == "@":
            items.append((char, tables.OTHER))
        elif known.flags & tables.IS_SIGN and last == tables.LETTER and items[-1][0] in LETTERS:
            pass  # a mark of another script
        elif known.kind != tables.DROP:
            items.append((known.form, known.kind))
        i += size

    out = ""
    for kind, group in groupby(items, key=lambda item: min(item[1], tables.LETTER)):
        members = list(group)
        if kind == tables.SPACE:
            out += " " if len(members) == 1 else "\x03"
            continue
        part, long = "", False
        for (form, kind_), run in groupby(members):
            times = len(list(run))
            if times >= 3 and kind_ not in (tables.DIGIT, -1):
                long |= kind_ == tables.LETTER
                times = keep
            part += form * times
        counts["stretched"] += long
        if kind == tables.LETTER:
            plain = unmask(part, text)
            counts["homoglyphs"] += sum(a != b for a, b in zip(part, plain, strict=True))
            # A digit inside the fold of a symbol (mm3) is nobody's disguise by itself.
            typed = any(kind_ == tables.DIGIT for _, kind_ in members)
            part = undo_leet(plain) if typed else plain
            counts["leet"] += sum(a != b for a, b in zip(plain, part, strict=True))
        out += part
    out, counts["spelled_out"] = join_spelled(out.strip(" \x03"))
    return out.replace("\x03", " "), counts


def entropy(data: bytes) -> float:
    shares = [count / len(data) for count in Counter(data).values()]
    return -sum(share * math.log2(share) for share in shares)


def quoted(text: str) -> int:
    """Characters in quoted lines, and between two double quotation marks of one line."""
    total = 0
    for line in re.split(r"[\n\r]", text):
        blank = [properties(c).kind in (tables.SPACE,) for c in line]
        begin = blank.index(False) if False in blank else len(line)
        rest = line[begin:]
        if rest.startswith(">") or rest.lower().startswith("&gt;"):
            total += len(rest)
        else:
            total += sum(map(len, re.findall(r'["“”„‟«»]([^"“”„‟«»]*)["“”„‟«»]', rest)))
    return total


def scan(text: str) -> dict[str, float]:
    """What kernels/scan.py measures."""
    flags = [properties(char).flags for char in text]

    def count(flag: int) -> int:
        return sum(bool(f & flag) for f in flags)

    emoji = invisible = combining = 0
    half = on_ascii = False
    for i, char in enumerate(text):
        before = text[i - 1] if i else ""
        flag = char in REGIONAL
        if flags[i] & tables.IS_EMOJI and before != "\u200d" and not half:
            emoji += 1
        half = flag and not half
        sign = flags[i] & tables.IS_SIGN and on_ascii
        combining += bool(flags[i] & tables.IS_MARK or sign)
        if not flags[i] & (tables.IS_MARK | tables.IS_SIGN):
            on_ascii = char in LETTERS
        part = before and (before in SKIN or before == "\ufe0f" or flags[i - 1] & tables.IS_EMOJI)
        if flags[i] & tables.IS_INVISIBLE and not (char == "\u200d" and part):
            invisible += 1
    solid = [f for f in flags if f >> tables.CLASS_SHIFT & 7 != tables.DROP or f & LETTER_OR_DIGIT]
    hashtags = sum(
        text[i] == "#"
        and bool(flags[i + 1] & tables.IS_LETTER)
        and not (i and (flags[i - 1] & LETTER_OR_DIGIT or text[i - 1] in "&/"))
        for i in range(len(text) - 1)
    )
    size, letters = max(len(text), 1), count(tables.IS_LETTER)
    cased = count(tables.IS_UPPER) + count(tables.IS_LOWER)
    return {
        "bytes": len(text.encode()),
        "chars": len(text),
        "words": sum(key for key, _ in groupby(bool(f & LETTER_OR_DIGIT) for f in solid)),
        "upper": count(tables.IS_UPPER) / max(cased, 1),
        "digits": count(tables.IS_DIGIT) / size,
        "punctuation": sum(char in string.punctuation for char in text) / size,
        "non_ascii": sum(not char.isascii() for char in text) / size,
        "latin": count(tables.IS_LATIN) / letters if letters else 1,
        "letters": letters,
        "emoji": emoji,
        "entropy": entropy(text.encode()),
        "longest_run": max((len(list(run)) for _, run in groupby(text)), default=0),
        "exclamations": text.count("!"),
        "questions": text.count("?"),
        "hashtags": hashtags,
        "quoted": quoted(text) / size,
        "invisible": invisible,
        "combining": combining,
    }


LETTER_OR_DIGIT = tables.IS_LETTER | tables.IS_DIGIT
REGIONAL = frozenset(map(chr, range(0x1F1E6, 0x1F200)))
SKIN = frozenset(map(chr, range(0x1F3FB, 0x1F400)))


def repeated_words(form: bytes) -> float:
    words = re.findall(rb"[A-Za-z0-9\x80-\xff]+", form)
    return (len(words) - len(set(words))) / max(len(words), 1)


def hits(
    form: str, terms: Sequence[str], allow: Sequence[str], word: bool
) -> list[tuple[int, int]]:
    """Code point spans of the hits of one lexicon in a normalised text."""

    def joins(char: str) -> bool:
        known = properties(char)
        return known.kind >= tables.LETTER and not known.flags & tables.IS_UNSPACED

    def whole(low: int, high: int) -> bool:
        before = low > 0 and joins(form[low - 1]) and joins(form[low])
        after = high < len(form) and joins(form[high - 1]) and joins(form[high])
        return not before and not after

    def places(words: Sequence[str]) -> set[tuple[int, int]]:
        return {
            (low, low + len(one))
            for one in words
            for low in range(len(form))
            if form.startswith(one, low) and (not word or whole(low, low + len(one)))
        }

    found, allowed = places(terms), places(allow)
    return sorted(
        (low, high)
        for low, high in found
        if not any(a <= low and high <= b for a, b in allowed)
        and not any(a <= low and high <= b and (a, b) != (low, high) for a, b in found)
    )


def luhn(number: str) -> bool:
    digits = [int(digit) for digit in reversed(number)]
    return sum(digits[::2] + [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]) % 10 == 0


def card(number: str) -> bool:
    """Issuers' prefixes and lengths, as regular expressions people publish them; Luhn."""
    issued = (
        r"4(\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|3[47]\d{13}|3(0[0-5]|[689]\d)\d{11}"
        r"|(6011|64[4-9]\d|6[25]\d\d|35(2[89]|[3-8]\d))\d{12,15}"
        r"|(222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
    )
    return bool(re.fullmatch(issued, number)) and luhn(number)


def ipv6(text: str) -> bool:
    """What the standard library reads as IPv6, three groups or more, a decimal digit if short."""
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    groups = [group for group in text.split(":") if group]
    return len(groups) >= 3 and ("::" not in text or any(char.isdigit() for char in text))


def iban(text: str) -> bool:
    number = text.replace(" ", "").upper()
    lengths = {c: size for size, all_ in pii._IBAN_LENGTHS.items() for c in all_.split()}
    if lengths.get(number[:2]) != len(number) or not number[2:4].isdigit():
        return False
    return int("".join(str(int(char, 36)) for char in number[4:] + number[:4])) % 97 == 1


def ipv4(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 4 and all(re.fullmatch("[0-9]{1,3}", p) and int(p) < 256 for p in parts)


def ssn(text: str) -> bool:
    """A number with dashes; the tests write a word for it before one with spaces."""
    return bool(re.fullmatch(r"(?!000|666|9)[0-9]{3}([ -])(?!00)[0-9]{2}\1(?!0000)[0-9]{4}", text))


def insurance(text: str) -> int:
    """UK National Insurance numbers: NIM39110's prefixes, pairs that may be spaced, A to D."""
    return len(
        re.findall(
            r"(?<![A-Za-z0-9])(?![DFIQUV])[A-Z](?![DFIOQUV])[A-Z](?<!BG|GB|KN|NK|NT|TN|ZZ)"
            r"(?: ?[0-9]{2}){3} ?[A-D](?![A-Za-z0-9])",
            text,
        )
    )


def email_around(text: str, floor: int, at: int) -> int:
    """End of the e-mail address around the @ at ``at``, or ``at``; it begins after ``floor``."""
    found = re.search(r"[A-Za-z0-9\x80-\U0010ffff._%+-]*\Z", text[floor:at])
    local = found[0].lstrip("._%+-") if found else ""
    host_ = re.split(r"[^A-Za-z0-9\x80-\U0010ffff.-]", text[at + 1 :])[0].rstrip(".-")
    good = local and re.fullmatch(r"[A-Za-z0-9\x80-\U0010ffff].*\.[A-Za-z]{2,}", host_)
    return at + 1 + len(host_) if good else at


def links_and_emails(text: str) -> tuple[int, int, float]:
    """Links, e-mail addresses and ``link_share`` of a text without numbers."""
    links = emails = linked = i = floor = 0
    while i < len(text):
        end = link_at(text, i)
        if end > i:
            links += 1
            linked += end - i  # a link is ASCII
        elif text[i] == "@":
            end = email_around(text, floor, i)
            emails += end > i
        floor = end if end > i else floor
        i = max(end, i + 1)
    return links, emails, linked / max(len(text.encode()), 1)


def listed(text: str, words: str) -> int:
    """How often the terms of a word list stand in the normal form, as whole words."""
    terms = [normalise(word.replace("_", " "))[0] for word in words.split()]
    form, undone = normalise(text)
    count = len(hits(form, terms, (), True))
    if undone["stretched"]:
        count = max(count, len(hits(normalise(text, keep=1)[0], terms, (), True)))
    return count


def phone(text: str) -> bool:
    """Whether a text is a telephone number: at once, 3-3-4, 5-5, or in pairs after a trunk 0."""
    gap = "[ ./\u2010-\u2015\xa0-]"
    one = r"\+[0-9]{9,15}|00[1-9][0-9]{8,12}|1?[2-9][0-9]{2}[2-9][0-9]{6}|0[1-9][0-9]{8,9}"
    groups = rf"(?:[2-9]|0[1-9])[0-9]{{1,2}}{gap}[0-9]{{3}}{gap}[0-9]{{4}}"
    five = rf"(?:[6-9]|0[1-9])[0-9]{{3,4}}{gap}[0-9]{{5}}"
    pairs = rf"0[1-9](?:{gap}[0-9]{{2}}){{4}}"
    if card(text.removeprefix("+")):
        return False
    shape = re.sub("[0-9]+", lambda run: str(len(run[0])), re.sub(gap, " ", text))
    if " " in text or re.search(gap, text):
        wanted = {"3 3 4": groups, "5 5": five, "2 2 2 2 2": pairs}
        return bool(re.fullmatch(wanted[shape], text))
    return bool(re.fullmatch(one, text))


def signature(text: bytes) -> list[int]:
    """What shingles.sign gives one normal form."""
    runs = {text[i : i + 5] for i in range(len(text) - 4)}
    values = []
    for seed in shingles._SEEDS.tolist():
        least = 0xFFFFFFFF
        for run in runs:
            x = int.from_bytes(run, "big") * 0x9E3779B97F4A7C15 % 2**64 >> 32
            h = (x ^ seed) * 0x85EBCA6B % 2**32
            h = (h ^ h >> 13) * 0xC2B2AE35 % 2**32
            least = min(least, h ^ h >> 16)
        values.append(least & 0xFFFF)
    return values


def clusters(signatures: list[list[int]]) -> list[int]:
    """What shingles.clusters gives, with sets that are joined instead of a forest."""
    sets = [{i} for i in range(len(signatures))]
    for band in range(16):
        places: dict[tuple[int, ...], list[int]] = {}
        for i, values in enumerate(signatures):
            places.setdefault(tuple(values[4 * band : 4 * band + 4]), []).append(i)
        for some in places.values():
            for j in range(1, len(some)):
                for other in (some[0], some[j - 1]):
                    pairs = zip(signatures[some[j]], signatures[other], strict=True)
                    if sum(a == b for a, b in pairs) >= 45:
                        joined = sets[some[j]] | sets[other]
                        for member in joined:
                            sets[member] = joined
    return [min(one) for one in sets]


def terms(form: bytes) -> set[bytes]:
    """The words and pairs of one normal form that terms.py counts."""
    found = set(re.findall(rb"[0-9A-Za-z'\x80-\xff]+", form))
    for match in re.finditer(
        rb"(?<![0-9A-Za-z'\x80-\xff])(?=([0-9A-Za-z'\x80-\xff]+ [0-9A-Za-z'\x80-\xff]+))", form
    ):
        found.add(match[1])
    return {term for term in found if 2 <= len(term) <= 32}


def edits(a: str, b: str) -> int:
    """Levenshtein's distance."""
    if not a or not b:
        return len(a) + len(b)
    if a[0] == b[0]:
        return edits(a[1:], b[1:])
    return 1 + min(edits(a[1:], b), edits(a, b[1:]), edits(a[1:], b[1:]))
