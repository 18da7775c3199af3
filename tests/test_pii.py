from __future__ import annotations

import string
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive
from edgemod.kernels import pii

DIGITS = st.text(string.digits, min_size=13, max_size=19)


def found(text: str) -> list[tuple[str, str]]:
    data = text.encode()
    items = pii.find_contacts(np.frombuffer(data, np.uint8))
    return [(what, data[low:high].decode()) for what, low, high in items]


def kinds(text: str) -> list[str]:
    return [what for what, _ in found(text)]


@settings(deadline=None)
@given(DIGITS)
def test_cards_are_those_that_pass_luhn(number: str) -> None:
    assert ("cards" in kinds(f"no {number} ok")) == naive.card(number)


@settings(deadline=None)
@given(st.text(string.digits, min_size=15, max_size=15))
def test_every_card_with_its_check_digit_is_found(head: str) -> None:
    numbers = [f"4{head[1:]}{check}" for check in string.digits]
    good = [number for number in numbers if naive.luhn(number)]
    assert len(good) == 1
    number = good[0]
    for separator in " -":
        grouped = separator.join(number[k : k + 4] for k in range(0, 16, 4))
        assert found(f"x {grouped}.") == [("cards", grouped)]


@settings(deadline=None)
@given(st.integers(2000, 6999), st.integers(13, 19), st.randoms())
def test_issuers_have_their_own_lengths(prefix: int, length: int, random: Random) -> None:
    head = str(prefix) + "".join(random.choices(string.digits, k=length - 5))
    number = next(head + check for check in string.digits if naive.luhn(head + check))
    assert ("cards" in kinds(f"no {number} ok")) == naive.card(number)


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(
        st.ip_addresses(v=6).map(str),
        st.ip_addresses(v=6).map(lambda address: address.exploded),
        st.from_regex(r"\A(:{0,2}[0-9a-fA-F]{0,5}){1,9}:{0,2}\Z"),
    ),
    st.sampled_from(["", "at ", "(", "é"]),
)
def test_ipv6_is_what_the_standard_library_reads(address: str, before: str) -> None:
    last = address.endswith(":") and not address.endswith("::")
    inside = address.removesuffix(":") if last else address
    want = naive.ipv6(inside) and before != "é"
    assert ("ips" in kinds(f"{before}{address} now")) == want


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), min_size=4, max_size=4))
def test_ips_are_four_numbers_to_255(parts: list[int]) -> None:
    address = ".".join(map(str, parts))
    assert ("ips" in kinds(f"at {address} now")) == naive.ipv4(address)


@settings(deadline=None)
@given(st.integers(0, 999), st.integers(0, 99), st.integers(0, 9999), st.sampled_from(" -"))
def test_ssn_has_a_valid_area(area: int, group: int, serial: int, separator: str) -> None:
    number = separator.join((f"{area:03}", f"{group:02}", f"{serial:04}"))
    assert ("national_ids" in kinds(f"ssn {number}, yes")) == naive.ssn(number)


@settings(deadline=None)
@given(
    st.sampled_from(["DE", "GB", "FR", "NO", "MT", "US"]),
    st.text(string.digits, min_size=2, max_size=2),
    st.text(string.ascii_uppercase + string.digits, min_size=11, max_size=28),
)
def test_ibans_are_those_that_pass_mod_97(country: str, check: str, rest: str) -> None:
    number = country + check + rest
    # In brackets: a word behind it could be its last letters.
    assert ("ibans" in kinds(f"to ({number}) please")) == naive.iban(number)
    # With the check digits that ISO 7064 asks for, it passes where the length is right.
    value = int("".join(str(int(char, 36)) for char in rest + country + "00"))
    good = f"{country}{98 - value % 97:02}{rest}"
    assert ("ibans" in kinds(f"to {good}")) == naive.iban(good)


ADDRESSES = st.lists(
    st.sampled_from(
        [
            "www.",
            "WWW.",
            "http://",
            "https://",
            "hxxp://",
            "ftp://",
            "http:/",
            "htp://",
            "a",
            "Bc",
            "a1",
            "é",
            "漢",
            "@",
            "@",
            ".",
            ".",
            "-",
            "_",
            "%",
            "+",
            "/",
            ":",
            "?",
            "!",
            "(",
            ")",
            "[",
            "]",
            "<",
            ">",
            "'",
            '"',
            "&",
            "#",
            "~",
            "*",
            "b@c.de",
            "x.org",
            "a@b.c",
            " ",
            "\n",
            "\u200b",
        ]
    ),
    max_size=16,
).map("".join)
INSURANCE = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", " ", "a", "1", "é", "(", ".", "-", "\xa0"]),
        st.one_of(
            st.text("ABCDEGKNOTZ", min_size=2, max_size=2),
            st.text("ABDFIOQUVabé", min_size=1, max_size=3),
        ),
        st.sampled_from(["", "", " ", "  ", "-"]),
        st.sampled_from(["12", "12", "12", "1", "123"]),
        st.sampled_from(["", " ", "", " ", "\xa0"]),
        st.sampled_from(["34", "00", "34", "3"]),
        st.sampled_from(["", " ", "", " ", "."]),
        st.sampled_from(["56", "99", "56", "5x"]),
        st.sampled_from(["", " ", "", "  "]),
        st.sampled_from(["A", "B", "C", "D", "E", "a", ""]),
        st.sampled_from(["", " ", ".", "a", "1", "é", "\u200b"]),
    ),
)


def counted(text: str, name: str) -> float:
    data = np.frombuffer(text.encode(), np.uint8)
    row = pii.contacts(data, np.array([0, len(data)]))[0]
    return float(row[(*pii.COLUMNS, "link_share").index(name)])


@settings(deadline=None, max_examples=200)
@given(ADDRESSES)
def test_links_and_emails_equal_their_twin(text: str) -> None:
    links, emails, share = naive.links_and_emails(text)
    assert counted(text, "links") == links
    assert counted(text, "emails") == emails
    assert counted(text, "link_share") == np.float32(share)


@settings(deadline=None, max_examples=200)
@given(INSURANCE)
def test_insurance_numbers_equal_their_twin(text: str) -> None:
    assert counted(text, "national_ids") == naive.insurance(text)


PHONES = st.one_of(
    st.from_regex(r"\A\+?[0-9]{1,19}\Z"),
    st.from_regex(r"\A(\+|00)?[1-9][0-9]{7,12}\Z"),
    st.from_regex(r"\A[0-9]{3}[ ./\u2011\xa0-][0-9]{3}[ ./\u2011\xa0-][0-9]{4}\Z"),
    st.from_regex(r"\A[0-9]{5}[ ./\u2011\xa0-][0-9]{5}\Z"),
    st.from_regex(r"\A0[0-9]([ /\u2011\xa0-][0-9]{2}){4}\Z"),
)


@settings(deadline=None, max_examples=200)
@given(PHONES, st.sampled_from(["", " ", "é", ",", "a", "$", "="]), st.sampled_from(", .éax"))
def test_phones_equal_their_twin(number: str, before: str, after: str) -> None:
    bare = before not in ("a", "$", "=") or number[0] == "+"
    want = bare and not (after.isascii() and after.isalpha()) and naive.phone(number)
    assert counted(before + number + after, "phones") == want


@settings(deadline=None)
@given(st.text("0123456789 -.()+@abAB:/w\u2011\xa0", max_size=80))
def test_items_are_in_order_inside_the_text_and_counted(text: str) -> None:
    data = np.frombuffer(text.encode(), np.uint8)
    items = pii.find_contacts(data)
    ends = [0] + [at for _, low, high in items for at in (low, high)] + [len(data)]
    assert ends == sorted(ends)
    counts = pii.contacts(data, np.array([0, len(data)]))[0]
    for column, name in enumerate(pii.COLUMNS):
        assert counts[column] == sum(what == name for what, _, _ in items)
    linked = sum(high - low for what, low, high in items if what == "links")
    assert counts[-1] == np.float32(linked / max(len(data), 1))


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_safe(data: bytes) -> None:
    for _, low, high in pii.find_contacts(np.frombuffer(data, np.uint8)):
        assert 0 <= low < high <= len(data)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("write to Bob.x+y@mail.site.co.uk.", [("emails", "Bob.x+y@mail.site.co.uk")]),
        ("@bob a@b me@x.c @", []),
        (
            "call 555-123-4567 or (555) 123-4567",
            [("phones", "555-123-4567"), ("phones", "(555) 123-4567")],
        ),
        ("+44 20 7946 0958", [("phones", "+44 20 7946 0958")]),
        ("+1 (555) 123-4567", [("phones", "+1 (555) 123-4567")]),
        ("555\u2011123\u20114567", [("phones", "555\u2011123\u20114567")]),
        ("06 12 34 56 78", [("phones", "06 12 34 56 78")]),
        ("07700 900123", [("phones", "07700 900123")]),
        ("98765 43210", [("phones", "98765 43210")]),
        ("1609459200, 01.02.2019 10:30, 1 000 000 000, 2019 2020 2021, $5551234567", []),
        ("4111 1111 1111 1111 123", [("cards", "4111 1111 1111 1111")]),
        ("4111 1111 1111 1112, 0000 0000 0000 0000", []),
        ("card=4111111111111111", [("cards", "4111111111111111")]),
        ("card #4111.1111.1111.1111", [("cards", "4111.1111.1111.1111")]),
        ("0.4111111111111111 <@4111111111111111> 9-4111111111111111", []),
        ("IMEI 490154203237518, seed 6541612345678906", []),
        ("SSN#123-45-6789", [("national_ids", "123-45-6789")]),
        ("my social security: 123 45 6789", [("national_ids", "123 45 6789")]),
        ("scores were 120 45 1999", []),
        ("3000000000 and 2000000000", []),
        ("2001:db8::8a2e:370:7334, ok", [("ips", "2001:db8::8a2e:370:7334")]),
        ("12:30:45 de:ad:be:ef:00:01 std::abc bad::cafe", []),
        ("jörg@münchen.de", [("emails", "jörg@münchen.de")]),
        ("GB82-WEST-1234-5698-7654-32", [("ibans", "GB82-WEST-1234-5698-7654-32")]),
        ("3782 822463 10005", [("cards", "3782 822463 10005")]),
        ("GB82 WEST 1234 5698 7654 32", [("ibans", "GB82 WEST 1234 5698 7654 32")]),
        ("GB82 WEST 1234 5698 7654 33", []),
        ("123-45-6789 666-45-6789 900-12-3456 123-00-6789", [("national_ids", "123-45-6789")]),
        ("AB 12 34 56 C", [("national_ids", "AB 12 34 56 C")]),
        ("QQ123456C BG123456C AB123456E", []),
        ("192.168.1.1 256.1.1.1 1.2.3.4.5", [("ips", "192.168.1.1")]),
        (
            "(see https://a.bc/4111111111111111?x=1).",
            [("links", "https://a.bc/4111111111111111?x=1")],
        ),
        ("www.a.bc and xwww.a.bc", [("links", "www.a.bc")]),
    ],
)
def test_golden_items(text: str, items: list[tuple[str, str]]) -> None:
    assert found(text) == items
