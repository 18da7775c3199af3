"""The desk, what is alike, and the page's server, asked with urllib as a page would."""

from __future__ import annotations

import http.client
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemod.errors import InputError, RunError
from edgemod.features import Lexicons, Span
from edgemod.policy import load_policy
from edgemod.reviewing import alike
from edgemod.reviewing.answers import Answer, Answers, moment
from edgemod.reviewing.desk import Care, Desk, Serving
from edgemod.reviewing.page import page
from edgemod.reviewing.queue import HIDDEN, Queue, _flat, open_queue, pieces
from edgemod.reviewing.serve import Server
from queues import MALICIOUS, rows, write_queue

ROOT = Path(__file__).parents[1]
FREE = Care(caps={}, gaps={}, alike=False)
SINGLE = Serving(double=0)


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Queue:
    return open_queue(write_queue(tmp_path_factory.mktemp("run") / "out"))


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[Answers]:
    with Answers.open(tmp_path / "answers.sqlite") as store:
        yield store


def said(answers: Answers) -> dict[str | None, str]:
    return {one.record_id: one.says for one in answers.standing()}


# ---------------------------------------------------------------- what is alike


def naive_groups(forms: list[bytes], contexts: list[str | None]) -> list[int]:
    """Every text against every first of a group, with sets."""
    first: list[int] = []
    for i, form in enumerate(forms):
        found = i
        for j in range(i):
            if first[j] != j:
                continue
            same = form == forms[j] and form and len(form) < 40 and contexts[i] == contexts[j]
            sets = [{f[k : k + 5] for k in range(len(f) - 4)} for f in (form, forms[j])]
            if len(form) >= 40 and len(forms[j]) >= 40:
                same = len(sets[0] & sets[1]) / len(sets[0] | sets[1]) >= 0.85
            if same:
                found = j
                break
        first.append(found)
    return first


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6))
def test_groups_equal_a_naive_search(seed: int) -> None:
    draw = random.Random(seed)
    words = ["one", "two", "three", "word", "green", "garden", "a", "is", "it"]
    forms: list[bytes] = []
    for _ in range(draw.randrange(30)):
        if forms and draw.random() < 0.5:
            base = draw.choice(forms).split()
            for _ in range(draw.randrange(3)):
                if base:
                    base[draw.randrange(len(base))] = draw.choice(words).encode()
            forms.append(b" ".join(base))
        else:
            forms.append(" ".join(draw.choices(words, k=draw.randrange(40))).encode())
    contexts = [draw.choice([None, "x", "y"]) for _ in forms]
    assert alike.groups(forms, contexts) == naive_groups(forms, contexts)


def test_half_alike_texts_are_not_each_compared_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    compared, whole = [0], alike.jaccard

    def counted(a: alike.Set, b: alike.Set) -> float:
        compared[0] += 1
        return whole(a, b)

    monkeypatch.setattr(alike, "jaccard", counted)
    draw = random.Random(0)
    template = "we sell the very best of garden tools to all of the people in our town "
    forms = [(template + f"{draw.getrandbits(200):x}").encode() for _ in range(600)]
    assert alike.groups(forms, [None] * 600) == [*range(600)]
    assert compared[0] < 30_000  # 65,000 where all that share a band are


# ---------------------------------------------------------------- pieces


def test_pieces_of_a_text_in_which_thousands_of_things_fire() -> None:
    found = [Span(8 * i, 8 * i + 6, "emails") for i in range(20_000)]
    found += [Span(0, 80_000, "links"), Span(3, 3, "none"), Span(4, 12, "emails")]
    stretches = [*_flat(160_000, found)]
    assert [a for a, *_ in stretches] == [0, *(b for _, b, _ in stretches[:-1])]
    assert stretches[0] == (0, 3, frozenset({"links", "emails"}))
    assert all(
        ("emails" in what) == (start % 8 < 6 or start < 12) and ("links" in what) == (end <= 80_000)
        for start, end, what in stretches
    )


@pytest.mark.parametrize("text", [*MALICIOUS, "", "a\tb\nc", "👩\u200d💻 ok", "x\u200dy"])
def test_pieces_are_the_text_with_every_character_visible(text: str) -> None:
    lexicons = Lexicons.compile(load_policy().lexicons)
    whole = ""
    for piece, what in pieces(text, lexicons, hide=False):
        hidden = re.fullmatch(r"U\+([0-9A-F]{4,})", piece) if what == HIDDEN else None
        whole += chr(int(hidden[1], 16)) if hidden else piece
        assert all(c.isprintable() or c in "\n\t\u200d" for c in piece)
    assert whole == text


def test_words_that_fired_are_dots_until_asked_for() -> None:
    lexicons = Lexicons.compile(load_policy().lexicons)
    term = load_policy().lexicons[0].terms[0]
    text = f"well {term} at http://a.example/x"
    hidden, whole = (pieces(text, lexicons, hide=hide) for hide in (True, False))
    assert "".join(piece for piece, _ in whole) == text
    assert term not in "".join(piece for piece, _ in hidden)
    assert ("http://a.example/x", "links") in hidden  # no term of a list


# ---------------------------------------------------------------- the desk


def test_alike_records_are_decided_once(queue: Queue, answers: Answers) -> None:
    desk = Desk(queue, answers, replace(FREE, alike=True), SINGLE)
    assert sum(len(unit.rows) for unit in desk.units) == queue.table.num_rows
    while (told := desk.next("anna")).get("alike") != 4:
        desk.skip("anna", told["row"])
    assert len(desk.reveal("anna", told["row"], 2)["alike"]) == 4
    desk.answer("anna", told["row"], "flag", category="spam_scam", note="a template", seconds=2.5)
    made = answers.standing()
    assert [one.says for one in made] == ["spam_scam"] * 5
    lead = next(one for one in made if one.decided_with is None)
    assert {one.decided_with for one in made} == {None, lead.answer_id}
    assert (lead.note, lead.seconds, lead.revealed) == ("a template", 2.5, 2)
    assert lead.policy == load_policy().fingerprint
    assert lead.inclusion_probability == 1.0
    assert desk.undo("anna")
    assert answers.standing() == []
    again = desk.next("anna")
    assert again["row"] == told["row"]
    desk.reveal("anna", again["row"], 1)
    desk.answer("anna", again["row"], "clear", alone=True)
    assert len(answers.standing()) == 1
    assert sum(len(unit.rows) for unit in desk.units) == queue.table.num_rows


def test_what_is_alike_to_an_answered_record_is_not_forgotten(
    queue: Queue, answers: Answers
) -> None:
    """A file, or another process, may have answered the first of a group alone."""
    desk = Desk(queue, answers, replace(FREE, alike=True), SINGLE)
    (group,) = (unit for unit in desk.units if len(unit.rows) == 5)
    first, second = (queue.row(i) for i in group.rows[:2])
    key = first["source"], first["source_row"]
    answers.add([Answer("x", None, *key, "ben", "clear", answered_at=moment())])
    told = desk.next("anna")
    while told.get("record_id") != second["record_id"]:
        desk.skip("anna", told["row"])
        told = desk.next("anna")
    assert told["alike"] == 3


def test_two_reviewers_never_have_the_same_record(queue: Queue, answers: Answers) -> None:
    desk = Desk(queue, answers, FREE, SINGLE)
    with Answers.open(answers.path) as other:
        second = Desk(queue, other, FREE, SINGLE)  # as of another process
        for _ in range(30):
            one, two = desk.next("anna"), second.next("ben")
            assert one.get("row") is None or one.get("row") != two.get("row")
            for of, name, told in ((desk, "anna", one), (second, "ben", two)):
                if "row" in told:
                    of.answer(name, told["row"], "escalate")
    assert len(answers.standing()) == queue.table.num_rows
    assert desk.next("anna")["why"] == "done"


def test_double_review_goes_to_two_and_no_third(queue: Queue, answers: Answers) -> None:
    desk = Desk(queue, answers, FREE, Serving(double=1))
    counts = []
    for name in ("anna", "ben", "cleo"):
        n = 0
        while "row" in (told := desk.next(name)):
            desk.answer(name, told["row"], "flag", category="hate")
            n += 1
        counts.append(n)
    assert counts == [23, 23, 0]


def test_conflicts_and_escalations_are_settled_by_somebody(queue: Queue, answers: Answers) -> None:
    desk = Desk(queue, answers, FREE, Serving(double=1))
    for name, category in (("anna", "hate"), ("ben", "toxic")):
        desk.answer(name, desk.next(name)["row"], "flag", category=category)
    desk.answer("anna", desk.next("anna")["row"], "escalate")
    for only, rows_left in (("conflicts", 1), ("escalated", 1)):
        lead = Desk(queue, answers, FREE, Serving(only=only))  # type: ignore[arg-type]
        told = lead.next("lead")
        assert len(told["earlier"]) >= 1
        lead.answer("lead", told["row"], "flag", category="hate")
        assert sum(one.settles for one in answers.standing()) == rows_left
        assert "row" not in lead.next("lead")
        lead.undo("lead")


def test_severe_records_are_spaced_and_capped(tmp_path: Path, answers: Answers) -> None:
    made = rows(40)
    for i, row in enumerate(made):
        row["severity"] = 5 if i < 20 else 1
    queue = open_queue(write_queue(tmp_path / "out", made))
    care = Care(caps={5: 4}, gaps={5: 3}, alike=False)
    desk = Desk(queue, answers, care, SINGLE)
    seen = []
    while "row" in (told := desk.next("anna")):
        seen.append(told["severity"])
        desk.reveal("anna", told["row"], 2)
        desk.answer("anna", told["row"], "clear")
    assert seen[:9] == [5, 1, 1, 1, 5, 1, 1, 1, 5]
    assert seen.count(5) == 4
    assert told["why"] == "capped"
    assert "row" in desk.next("ben")
    calm = Desk(queue, answers, replace(care, pause_minutes=0.0001), SINGLE)
    time.sleep(0.05)
    assert calm.next("anna")["severity"] == 5


def test_categories_can_be_left_out(queue: Queue, answers: Answers) -> None:
    desk = Desk(queue, answers, replace(FREE, without=frozenset({"hate"})), SINGLE)
    seen = set()
    while "row" in (told := desk.next("anna")):
        seen.add(told["category"])
        desk.skip("anna", told["row"])
    assert seen == {"toxic", "threat_violence", "spam_scam"}
    assert told["why"] == "skipped"


def test_nobody_clears_unseen_or_flags_without_a_category(queue: Queue, answers: Answers) -> None:
    desk = Desk(queue, answers, FREE, SINGLE)
    row = desk.next("anna")["row"]
    for wrong in (
        dict[str, Any](answer="clear"),
        {"answer": "flag"},
        {"answer": "flag", "category": "any"},
        {"answer": "undo"},
    ):
        with pytest.raises(InputError):
            desk.answer("anna", row, **wrong)
    with pytest.raises(InputError, match="another record"):
        desk.answer("anna", row + 1, "escalate")
    assert answers.standing() == []


def test_a_sample_keeps_its_random_order(tmp_path: Path, answers: Answers) -> None:
    """Else the mild ones would come first, and the first answers be no sample."""
    queue = open_queue(write_queue(tmp_path / "out") / "review")
    desk = Desk(queue, answers, Care(caps={}, alike=False), SINGLE)
    seen = []
    for _ in range(8):
        told = desk.next("anna")
        seen.append(told["row"])
        desk.answer("anna", told["row"], "flag", category="hate")
    assert seen == [*range(8)]


def test_samples_are_blind(tmp_path: Path, answers: Answers) -> None:
    out = write_queue(tmp_path / "out")
    queue = open_queue(out / "review")
    assert queue.sample
    told = Desk(queue, answers, FREE, SINGLE).next("anna")
    assert not {"category", "severity", "reason", "stage", "definition", "p"} & {*told}
    assert told["rank"] is None
    with pytest.raises(RunError, match="not the folder of a complete run"):
        open_queue(tmp_path)


# ---------------------------------------------------------------- the server


@pytest.fixture
def served(queue: Queue, answers: Answers) -> Iterator[tuple[Server, dict[str, str]]]:
    server = Server()
    addresses = server.attend(Desk(queue, answers, FREE, SINGLE), ["anna", "ben"])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server, addresses
    server.shutdown()
    thread.join()
    server.server_close()


def ask(
    server: Server, path: str, body: Any = None, *, method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    given = {"Content-Type": "application/json"} if method == "POST" else {}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    content = None if method == "GET" else json.dumps(body or {})
    connection.request(method, path, content, given)
    response = connection.getresponse()
    found = response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    connection.close()
    return found


def path_of(address: str) -> str:
    return "/" + address.split("/", 3)[3]


def test_a_record_is_answered_through_the_server(
    served: tuple[Server, dict[str, str]], answers: Answers
) -> None:
    server, addresses = served
    anna, ben = (path_of(addresses[name]) for name in ("anna", "ben"))
    told = json.loads(ask(server, anna + "next")[2])
    assert told["record_id"] == "r0"
    assert "text" not in told
    assert json.loads(ask(server, ben + "next")[2])["record_id"] == "r1"
    status, _, body = ask(server, anna + "answer", {"row": 0, "answer": "clear"})
    assert status == 409
    assert "Reveal" in json.loads(body)["error"]
    text = json.loads(ask(server, anna + "reveal", {"row": 0, "level": 2})[2])["text"]
    assert "".join(piece for piece, _ in text).startswith("You say that garden 0")
    told = json.loads(ask(server, anna + "answer", {"row": 0, "answer": "clear", "seconds": 1})[2])
    assert told["record_id"] == "r2"
    assert said(answers) == {"r0": "clear"}
    ask(server, anna + "undo")
    assert said(answers) == {}


def test_only_who_knows_the_address_may_ask(served: tuple[Server, dict[str, str]]) -> None:
    server, addresses = served
    anna = path_of(addresses["anna"])
    good = f"127.0.0.1:{server.server_port}"
    assert len(anna) > 30
    assert ask(server, anna, method="GET")[0] == 200
    status, headers_, _ = ask(server, anna.rstrip("/"), method="GET")
    assert (status, headers_["location"]) == (308, anna)
    for status, path, headers in (
        (404, "/", {}),
        (404, "/wrong/next", {}),
        (404, anna[:-2] + "/next", {}),
        (421, anna, {"Host": "a.example"}),
        (421, anna, {"Host": f"a.example:{server.server_port}"}),
        (421, anna, {"Host": good, "Origin": "http://a.example"}),
        (421, anna, {"Origin": "null"}),
        (421, anna, {"Sec-Fetch-Site": "cross-site"}),
    ):
        for method in ("GET", "POST"):
            found, _, body = ask(server, path, method=method, **headers)
            assert found == status, (path, headers)
            assert b"record" not in body
    assert ask(server, anna + "next", Origin=f"http://{good}")[0] == 200
    assert ask(server, anna + "next", method="GET")[0] == 404


@pytest.mark.parametrize(
    ("action", "body", "kind"),
    [
        ("next", {}, "text/plain"),
        ("wrong", {}, "application/json"),
        ("answer", {}, "application/json"),
        ("answer", {"row": "x", "answer": "clear"}, "application/json"),
        ("reveal", {"row": 0, "level": None}, "application/json"),
        ("next", [1], "application/json"),
        ("next", {"x": "y" * 70_000}, "application/json"),
    ],
)
def test_strange_requests_are_refused(
    served: tuple[Server, dict[str, str]], action: str, body: Any, kind: str
) -> None:
    server, addresses = served
    anna = path_of(addresses["anna"])
    if action == "reveal":
        ask(server, anna + "next")
    assert ask(server, anna + action, body, Content_Type=kind)[0] == 400


def test_the_page_loads_nothing_and_runs_only_its_own(
    served: tuple[Server, dict[str, str]],
) -> None:
    server, addresses = served
    _, headers, body = ask(server, path_of(addresses["anna"]), method="GET")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    text = body.decode()
    assert not re.search(r"\b(?:src|href|action)=|https?://|@import|url\(", text)
    assert not re.search(r"\son\w+=|style=", text)  # what the policy would not run


def test_what_a_page_begins_with_cannot_leave_its_place() -> None:
    document, _ = page("served", {"reviewer": "".join(MALICIOUS), "categories": []})
    assert document.count("</script>") == 3
    inside = re.search(r'<script type="application/json" id="data">(.*?)</script>', document, re.S)
    assert inside
    assert json.loads(inside[1])["reviewer"] == "".join(MALICIOUS)


def test_the_command_serves_behind_the_guard(tmp_path: Path) -> None:
    """As users start it; and it can make no socket of its own."""
    out = write_queue(tmp_path / "out")
    code = f"""
import sys, threading
from edgemod import offline
from edgemod.reviewing import serve
def attend(self, desk, reviewers, own=serve.Server.attend):
    print(offline.held(), offline.answer(), flush=True)
    return own(self, desk, reviewers)
serve.Server.attend = attend
sys.argv = ["edgemod", "review", "serve", {str(out)!r}, "--reviewer", "anna"]
from edgemod.__main__ import main
main()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout
        guard = process.stdout.readline().split()
        name, address = process.stdout.readline().split()
        port = int(address.split(":")[2].split("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("POST", path_of(address) + "next", "{}",
                           {"Content-Type": "application/json"})  # fmt: skip
        told = json.loads(connection.getresponse().read())
        connection.close()
        process.terminate()
    assert name == "anna"
    assert told["record_id"] == "r0"
    assert guard in (["seccomp", "EACCES"], ["audit", "hook", "made"])
    assert (out / "answers.sqlite").stat().st_mode & 0o777 == 0o600
