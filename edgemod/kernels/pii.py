"""Links and personal data with checks, in the original bytes (digits and separators of ASCII).

==============  ==============================================================================
links           see ``text.link_end``; nothing inside a link is anything else
emails          local part, @, dotted host that ends in two or more ASCII letters
cards           prefix and length of an issuer (``_issued``), at once or in groups of which the
                first has four, Luhn check; not the decimals of a number, nor an id after @
ips             IPv4: four numbers of 0 to 255 with dots between; IPv6 (RFC 4291, 2.2): eight groups
                of hexadecimal digits, or three to seven and ``::``, a decimal digit among them
national_ids    US SSN: 3-2-4 with dashes, or with spaces after a word for it; area not 000, 666 or
                9xx, no part all zeros (SSA, 20 CFR 422.103); UK National Insurance number:
                prefixes as in HMRC's manual NIM39110, suffix A to D. Neither has a check digit
ibans           length of the country (SWIFT IBAN registry) and ISO 7064 mod 97
phones          9 to 15 digits in groups: after + or 00; after a bracketed area code; North
                American 3-3-4 (area 2xx to 9xx); Indian 5-5; or after a trunk 0
==============  ==============================================================================
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit, types

from edgemod.kernels.text import (
    DATA,
    OFFSETS,
    UNCOUNTED,
    Bytes,
    Floats,
    Ints,
    among,
    inner,
    is_alnum,
    is_digit,
    is_letter,
    link_end,
    starts,
)

COLUMNS: Final = ("links", "emails", "cards", "ips", "national_ids", "phones", "ibans")
"""What ``contacts`` counts, in order; ``link_share`` comes after."""

_NONE: Final = -1
_LINK, _EMAIL, _CARD, _IP, _NATIONAL, _PHONE, _IBAN = range(7)
_GROUPS: Final = 8
_DIGITS: Final = 19

_ONE: Final = np.uint64(1)
_ITEM: Final = np.uint8(1)  # a digit, @ or a colon
_LINK_FIRST: Final = np.uint8(2)  # http, hxxp, ftp and www begin so ...
_LINK_SECOND: Final = np.uint8(4)  # ... and go on so
_SIGNS: Final = np.zeros(256, np.uint8)
_SIGNS[list(b"0123456789@:")] = _ITEM
_SIGNS[list(b"fFhHwW")] = _LINK_FIRST
_SIGNS[list(b"tTxXwW")] |= _LINK_SECOND

_IBAN_LENGTHS: Final = {
    15: "NO",
    16: "BE",
    18: "DK FI FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
_LENGTHS: Final = np.zeros(26 * 26, np.int64)
for _length, _countries in _IBAN_LENGTHS.items():
    for _country in _countries.split():
        _LENGTHS[(ord(_country[0]) - 65) * 26 + ord(_country[1]) - 65] = _length


@inner
def _separator(data: Bytes, i: int, end: int) -> tuple[int, int]:
    """Kind and bytes of what stands between two groups of digits at ``i``; (0, 0) if nothing.

    One space or dash of any width, dot or slash, with a closing bracket before it or an opening
    one after it. The kind is the ASCII byte; a closing bracket's where there is one.
    """
    j = i
    kind = 0
    if j < end and data[j] == 41:
        kind = 41
        j += 1
    mark = 0
    if j < end and among(data[j], b" -./"):
        mark = np.int64(data[j])
        j += 1
    elif j + 1 < end and data[j] == 0xC2 and data[j + 1] == 0xA0:
        mark = 32
        j += 2
    elif j + 2 < end and data[j] == 0xE2 and data[j + 1] == 0x80 and 0x90 <= data[j + 2] <= 0x95:
        mark = 45
        j += 3
    if kind == 0:
        kind = mark
    if j < end and data[j] == 40:
        kind = 40 if kind == 0 else kind
        j += 1
    return (kind, j - i) if j < end and is_digit(data[j]) else (0, 0)


@inner
def _read(data: Bytes, i: int, end: int, digits: Ints, groups: Ints) -> int:
    """Read up to 8 groups of at most 19 digits in all from ``i``; how many groups.

    ``groups`` (8, 3): digits so far, the separator before, the offset after.
    """
    total = count = 0
    separator = 0
    while count < _GROUPS:
        while i < end and is_digit(data[i]) and total < _DIGITS:
            digits[total] = np.int64(data[i]) - 48
            total += 1
            i += 1
        if i < end and is_digit(data[i]):
            return count  # the group goes on: leave it out
        groups[count, 0] = total
        groups[count, 1] = separator
        groups[count, 2] = i
        count += 1
        separator, size = _separator(data, i, end)
        if size == 0:
            break
        i += size
    return count


@inner
def _width(groups: Ints, k: int) -> int:
    """Digits in group ``k``."""
    return groups[k, 0] - (groups[k - 1, 0] if k else 0)


@inner
def _luhn(digits: Ints, total: int) -> bool:
    """ISO/IEC 7812-1 annex B: double every second digit from the right, the sum ends in 0."""
    check = 0
    for k in range(total):
        digit = digits[total - 1 - k]
        if k % 2:
            digit = digit * 2 - 9 if digit > 4 else digit * 2
        check += digit
    return check % 10 == 0


@inner
def _issued(digits: Ints, total: int) -> bool:
    """Whether a card network issues numbers that begin so and have ``total`` digits.

    The networks' published ranges: Visa, Mastercard, American Express, Discover, JCB, Diners
    Club and UnionPay. Maestro's, which are much of all numbers, are left out.
    """
    four = digits[0] * 1000 + digits[1] * 100 + digits[2] * 10 + digits[3]
    two = four // 100
    if two // 10 == 4:
        return total in (13, 16, 19)
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return total == 16
    if two in (34, 37):
        return total == 15
    if two in (36, 38, 39) or 3000 <= four <= 3059:
        return total == 14
    if two in (62, 65) or four == 6011 or 6440 <= four <= 6499 or 3528 <= four <= 3589:
        return 16 <= total <= 19
    return False


@inner
def _card(digits: Ints, groups: Ints, count: int) -> int:
    """The number of groups that make a card number, the most that do, or 0."""
    if count > 1 and _width(groups, 0) < 4:
        return 0
    best = 0
    for k in range(count):
        if k and (groups[k, 1] != groups[1, 1] or not among(groups[1, 1], b" -.")):
            break
        if k and _width(groups, 0) != 4:
            break
        if _issued(digits, groups[k, 0]) and _luhn(digits, groups[k, 0]):
            best = k + 1
    return best


@inner
def _ip(digits: Ints, groups: Ints, count: int) -> bool:
    """Whether the first four groups are an IPv4 address, and no fifth follows with a dot."""
    if count < 4 or (count > 4 and groups[4, 1] == 46):
        return False
    low = 0
    for k in range(4):
        high = groups[k, 0]
        if high - low > 3 or (k and groups[k, 1] != 46):
            return False
        value = 0
        for d in range(low, high):
            value = value * 10 + digits[d]
        if value > 255:
            return False
        low = high
    return True


@inner
def _has_cue(data: Bytes, start: int, i: int) -> bool:
    """Whether "SSN" or "social security" stands in the 32 bytes before ``i``."""
    for j in range(max(start, i - 32), i):
        if starts(data, j, i, b"ssn") or starts(data, j, i, b"social sec"):
            return True
    return False


@inner
def _ssn(data: Bytes, start: int, i: int, digits: Ints, groups: Ints, count: int) -> bool:
    """Whether the groups are 3-2-4 digits of a US social security number, and no more follow."""
    if count < 3 or groups[0, 0] != 3 or groups[1, 0] != 5 or groups[2, 0] != 9:
        return False
    kind = groups[1, 1]
    if not among(kind, b" -") or groups[2, 1] != kind or (count > 3 and groups[3, 1] == kind):
        return False
    if kind == 32 and not _has_cue(data, start, i):
        return False
    area = digits[0] * 100 + digits[1] * 10 + digits[2]
    group = digits[3] + digits[4]
    serial = digits[5] + digits[6] + digits[7] + digits[8]
    return area not in (0, 666) and area < 900 and group > 0 and serial > 0


@inner
def _upto(groups: Ints, count: int, least: int, most: int) -> int:
    """The most groups with ``least`` to ``most`` digits in all, or 0."""
    best = 0
    for k in range(count):
        if least <= groups[k, 0] <= most:
            best = k + 1
    return best


@inner
def _north_american(digits: Ints, groups: Ints, count: int) -> int:
    """Groups of a 3-3-4 number (a leading 1 apart), or 0; the area begins with 2 to 9.

    So does the exchange where the digits are in one, as any count may be.
    """
    lead = 1 if digits[0] == 1 else 0
    for k in range(count):
        if groups[k, 0] == 10 + lead:
            widths = k == 0
            if k - lead == 1 or (k == 1 and lead == 0):
                widths = groups[k - 1, 0] - lead in (3, 6)
            if k - lead == 2:
                widths = groups[k - 2, 0] - lead == 3 and groups[k - 1, 0] - lead == 6
            likely = digits[lead] > 1 and (k > 0 or digits[lead + 3] > 1)
            return k + 1 if widths and likely else 0
    return 0


@inner
def _trunk(digits: Ints, groups: Ints, count: int) -> int:
    """Groups of a national number that begins with a single 0, 9 to 11 digits; or 0."""
    if digits[0] != 0 or digits[1] == 0:
        return 0
    pairs = True
    for k in range(count):
        width = _width(groups, k)
        pairs = pairs and width == 2
        if width < 2 or (not pairs and _width(groups, 0) < 3):
            return 0
        if pairs and k == 4:
            return 5
        last = k + 1 == count or groups[k + 1, 0] > 11 or _width(groups, k + 1) < 2
        if last and not pairs and groups[k, 0] >= 9 + (k == 0) and groups[k, 0] <= 11:
            return k + 1
    return 0


@inner
def _phone(lead: int, digits: Ints, groups: Ints, count: int) -> int:
    """Groups of a telephone number after the byte ``lead``, or 0."""
    if lead == 43:
        return _upto(groups, count, 9, 15)
    if digits[0] == 0 and digits[1] == 0 and digits[2] != 0:
        return _upto(groups, count, 11, 15)
    if lead == 40 and count > 1 and 2 <= groups[0, 0] <= 5 and groups[1, 1] == 41:
        return _upto(groups, count, 9, 12)
    if count > 1 and groups[0, 0] == 5 and groups[1, 0] == 10 and digits[0] >= 6:
        return 2
    if digits[0] == 0:
        return _trunk(digits, groups, count)
    return _north_american(digits, groups, count)


@inner
def _number(
    data: Bytes, start: int, i: int, end: int, digits: Ints, groups: Ints
) -> tuple[int, int, int]:
    """What the number at ``i`` is: kind, start and end; (_NONE, i, end of the first group)."""
    stop = i
    while stop < end and is_digit(data[stop]):
        stop += 1
    digits[:3] = 0
    count = _read(data, i, end, digits, groups)
    lead = np.int64(data[i - 1]) if i > start else np.int64(32)
    if count == 0 or groups[count - 1, 0] < 4 or lead == 36:
        return _NONE, i, stop
    labelled = among(lead, b"#=_/")  # numbered things; what has a check may follow all the same
    if lead != 46 and not labelled and _ip(digits, groups, count):
        return _IP, i, groups[3, 2]
    if _ssn(data, start, i, digits, groups, count):
        return _NATIONAL, i, groups[2, 2]
    used, kind = 0, _CARD
    goes_on = among(lead, b".-") and i - 1 > start and is_digit(data[i - 2])
    if lead != 64 and not goes_on:
        used = _card(digits, groups, count)
    if used == 0 and not labelled:
        used, kind = _phone(lead, digits, groups, count), _PHONE
    if used == 0:
        return _NONE, i, stop
    after = groups[used - 1, 2]
    if after < end and is_letter(data[after]):
        return _NONE, i, stop
    low = i - 1 if kind == _PHONE and (lead == 43 or lead == 40) else i
    return kind, low, after


@inner
def _iban(data: Bytes, i: int, end: int, lengths: Ints, digits: Ints) -> int:
    """End of the IBAN at ``i``, or ``i``. Groups may have one space or dash between."""
    length = lengths[(np.int64(data[i] | 32) - 97) * 26 + np.int64(data[i + 1] | 32) - 97]
    j = i
    for k in range(length):
        if k > 3 and j < end and among(data[j], b" -"):
            j += 1
        elif k > 3 and j + 1 < end and data[j] == 0xC2 and data[j + 1] == 0xA0:
            j += 2
        if j >= end or not is_alnum(data[j]):
            return i
        byte = np.int64(data[j])
        digits[k] = byte - 48 if is_digit(byte) else (byte | 32) - 87
        j += 1
    if length == 0 or digits[2] > 9 or digits[3] > 9 or (j < end and is_alnum(data[j])):
        return i
    rest = 0
    for k in range(length):
        value = digits[(k + 4) % length]
        rest = (rest * (100 if value > 9 else 10) + value) % 97
    return j if rest == 1 else i


@inner
def _insurance(data: Bytes, i: int, end: int) -> int:
    """End of the UK National Insurance number at ``i``, or ``i``. Pairs may be spaced."""
    one, two = np.int64(data[i]), np.int64(data[i + 1])
    if among(one, b"DFIQUV") or among(two, b"DFIOQUV") or one > 90 or two > 90:
        return i
    pair = one << 8 | two
    for bad in (0x4247, 0x4742, 0x4B4E, 0x4E4B, 0x4E54, 0x544E, 0x5A5A):  # BG GB KN NK NT TN ZZ
        if pair == bad:
            return i
    j = i + 2
    for k in range(6):
        if k % 2 == 0 and j < end and data[j] == 32:
            j += 1
        if j >= end or not is_digit(data[j]):
            return i
        j += 1
    if j < end and data[j] == 32:
        j += 1
    if j >= end or not 65 <= data[j] <= 68 or (j + 1 < end and is_alnum(data[j + 1])):
        return i
    return j + 1


@inner
def _lettered(
    data: Bytes, floor: int, i: int, end: int, lengths: Ints, digits: Ints
) -> tuple[int, int, int]:
    """The IBAN or National Insurance number whose first digit is at ``i``, if it is of one."""
    low = i - 2
    if low - 1 >= floor and data[i - 1] == 32:
        low -= 1
    if low < floor or not is_letter(data[low]) or not is_letter(data[low + 1]):
        return _NONE, i, i
    if low > floor and is_alnum(data[low - 1]):
        return _NONE, i, i
    stop = _iban(data, low, end, lengths, digits) if low == i - 2 else low
    if stop > low:
        return _IBAN, low, stop
    stop = _insurance(data, low, end)
    return (_NATIONAL, low, stop) if stop > low else (_NONE, i, i)


@inner
def _is_name(byte: int) -> bool:
    """A letter or digit of an address; any byte of a character outside ASCII may be."""
    return is_alnum(byte) or byte >= 128


@inner
def _email(data: Bytes, floor: int, at: int, end: int) -> tuple[int, int]:
    """Start and end of the e-mail address around the @ at ``at``; equal if there is none."""
    low = at
    while low > floor and (_is_name(data[low - 1]) or among(data[low - 1], b"._%+-")):
        low -= 1
    while low < at and not _is_name(data[low]):
        low += 1
    high = at + 1
    dot = at
    while high < end and (_is_name(data[high]) or among(data[high], b".-")):
        high += 1
    while high > at + 1 and not _is_name(data[high - 1]):
        high -= 1
    tail = high
    while tail > at + 1 and is_letter(data[tail - 1]):
        tail -= 1
    dot = tail - 1
    good = low < at and high - tail >= 2 and dot > at + 1 and data[dot] == 46
    return (low, high) if good and _is_name(data[at + 1]) else (at, at)


@inner
def _is_hex(byte: int) -> bool:
    """0 to 9 and a to f, either case."""
    return is_digit(byte) or 97 <= byte | 32 <= 102


@inner
def _ipv6(data: Bytes, floor: int, colon: int, end: int) -> tuple[int, int]:
    """Start and end of the IPv6 address with its first colon at ``colon``; equal if none."""
    low = colon
    while low > floor and low > colon - 5 and _is_hex(data[low - 1]):
        low -= 1
    before = np.int64(data[low - 1]) if low > floor else np.int64(32)
    if is_alnum(before) or among(before, b":._") or before >= 128:
        return colon, colon
    i = low
    groups = 0
    short = decimal = False
    while i < end:
        first = i
        while i < end and i < first + 5 and _is_hex(data[i]):
            decimal |= is_digit(data[i])
            i += 1
        if i - first > 4:
            return colon, colon
        groups += i > first
        if i >= end or data[i] != 58 or groups == 8:
            break
        if i + 1 < end and data[i + 1] == 58:
            if short:
                return colon, colon
            short = True
            i += 1
        elif i == first or i + 1 >= end or not _is_hex(data[i + 1]):
            break  # a colon that ends a sentence
        i += 1
    if i < end and (is_alnum(data[i]) or data[i] == 95 or data[i] >= 128):
        return colon, colon
    if i < end and data[i] == 58 and data[i - 1] == 58:
        return colon, colon
    good = groups == 8 if not short else 3 <= groups < 8 and decimal
    return (low, i) if good else (colon, colon)


@inner
def _skip(data: Bytes, i: int, end: int) -> int:
    """Where from ``i`` on a digit, @, a colon or what may be a link stands; ``end`` if nowhere.

    Unsigned, for numba asks each signed index whether it is negative.
    """
    k, stop = np.uint64(i), np.uint64(end)
    follower = _SIGNS[data[k]] if k < stop else np.uint8(0)
    while k < stop:
        flags = follower
        follower = _SIGNS[data[k + _ONE]] if k + _ONE < stop else np.uint8(0)
        if flags & _ITEM | (flags & _LINK_FIRST and follower & _LINK_SECOND):
            break
        k += _ONE
    return np.int64(k)


@inner
def _next(
    data: Bytes, start: int, floor: int, end: int, lengths: Ints, digits: Ints, groups: Ints
) -> tuple[int, int, int]:
    """The first item of ``data[floor:end]``: kind, start and end; (_NONE, end, end) if none."""
    i = _skip(data, floor, end)
    while i < end:
        byte = data[i]
        if is_digit(byte):
            kind, low, high = _lettered(data, floor, i, end, lengths, digits)
            if kind == _NONE and not (i > start and is_letter(data[i - 1])):
                kind, low, high = _number(data, start, i, end, digits, groups)
            if kind != _NONE:
                return kind, low, high
            i += 1
            while i < end and is_digit(data[i]):
                i += 1
            i = _skip(data, i, end)
            continue
        if byte == 64:
            low, high = _email(data, floor, i, end)
            if high > low:
                return _EMAIL, low, high
        elif byte == 58:
            low, high = _ipv6(data, floor, i, end)
            if high > low:
                return _IP, low, high
        else:
            high = link_end(data, start, i, end)
            if high > i:
                return _LINK, i, high
        i = _skip(data, i + 1, end)
    return _NONE, end, end


@njit(
    types.void(
        *(DATA, OFFSETS, OFFSETS),
        *(types.int64[::1], types.int64[:, ::1], types.float32[:, ::1]),
    ),
    **UNCOUNTED,
)
def _contacts(
    data: Bytes, offsets: Ints, lengths: Ints, digits: Ints, groups: Ints, out: Floats
) -> None:
    for row in range(len(offsets) - 1):
        start, end = offsets[row], offsets[row + 1]
        i = start
        linked = 0
        while i < end:
            kind, low, i = _next(data, start, i, end, lengths, digits, groups)
            if kind != _NONE:
                out[row, kind] += 1
            if kind == _LINK:
                linked += i - low
        out[row, 7] = linked / np.float32(max(end - start, 1))


@njit(types.int64(DATA, OFFSETS, types.int64[:, ::1]), cache=True, nogil=True)
def _find(data: Bytes, lengths: Ints, out: Ints) -> int:
    digits = np.zeros(64, np.int64)
    groups = np.zeros((_GROUPS, 3), np.int64)
    i = count = 0
    while i < len(data):
        kind, low, i = _next(data, 0, i, len(data), lengths, digits, groups)
        if kind != _NONE:
            out[count, 0], out[count, 1], out[count, 2] = kind, low, i
            count += 1
    return count


def contacts(data: Bytes, offsets: Ints) -> Floats:
    """Count links and personal data: float32 (n, len(COLUMNS) + 1), the last ``link_share``."""
    out = np.zeros((len(offsets) - 1, len(COLUMNS) + 1), np.float32)
    digits, groups = np.zeros(64, np.int64), np.zeros((_GROUPS, 3), np.int64)
    _contacts(data, offsets, _LENGTHS, digits, groups, out)
    return out


def find_contacts(data: Bytes) -> list[tuple[str, int, int]]:
    """The links and personal data of one text in order: column name, byte offsets."""
    out = np.empty((len(data) // 2 + 1, 3), np.int64)
    count = _find(data, _LENGTHS, out)
    return [(COLUMNS[kind], low, high) for kind, low, high in out[:count].tolist()]
