"""The review page on this machine: a small web server on the loopback address, for one run.

The standard library's server does: a handful of requests a minute, from people at this machine. A
framework would be a dependency to trust with the most sensitive of what edgemod writes.

Who may ask: whoever knows the random token in the address, which differs for each reviewer.
Requests whose Host is not this server's are refused, since another site could point its name at
127.0.0.1 (DNS rebinding), and so are those that a browser says come from another page. The
listening socket is made first and the guard of offline.py after it: accepting a connection needs no
socket call, so the process can answer and can call nobody.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import threading
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from edgemod.errors import EdgemodError, InputError, OutputError
from edgemod.reviewing.desk import Desk, beginning
from edgemod.reviewing.page import page

_ADDRESS: Final = "127.0.0.1"
_MOST_BODY: Final = 64 * 1024
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the token is in the address
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Server(ThreadingHTTPServer):
    """Serves one desk to some reviewers, on ``port`` of the loopback address (0: any that is free).

    Made before ``offline.guard``: it makes its listening socket. Raises OutputError if it cannot.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        try:
            super().__init__((_ADDRESS, port), _Handler)
        except OSError as error:
            raise OutputError(
                f"cannot listen on port {port}: {error.strerror}",
                where=_ADDRESS,
                fix="Name another with --port, or none for any that is free.",
            ) from error
        self.lock = threading.Lock()  # a desk is for one thread at a time
        self.tokens: dict[str, str] = {}
        self.hosts: set[str] = set()

    def server_bind(self) -> None:
        """Bind the socket; the standard library would look its name up, too."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = _ADDRESS, int(self.server_address[1])

    def attend(self, desk: Desk, reviewers: Sequence[str]) -> dict[str, str]:
        """Serve this desk from ``serve_forever`` on; the address of each reviewer's page.

        Whoever knows an address is that reviewer.
        """
        self.desk = desk
        self.tokens = {secrets.token_urlsafe(24): name for name in reviewers}
        self.hosts = {f"{_ADDRESS}:{self.server_port}", f"localhost:{self.server_port}"}
        here = f"http://{_ADDRESS}:{self.server_port}"
        return {name: f"{here}/{token}/" for token, name in self.tokens.items()}

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection, in a way that the guard's audit hook sees is no new socket."""
        descriptor, address = self.socket._accept()  # type: ignore[attr-defined]
        return socket.socket(fileno=descriptor), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that break off: what would be said may quote a record."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 30
    server_version, sys_version = "edgemod", ""

    def do_GET(self) -> None:
        """The page."""
        reviewer, action = self._asked()
        if reviewer is None:
            return
        if action:
            self._tell(HTTPStatus.NOT_FOUND, {"error": "there is no such page"})
            return
        if not (path := urlsplit(self.path).path).endswith("/"):  # the page asks beside its address
            self._send(HTTPStatus.PERMANENT_REDIRECT, b"", "text/plain", {"Location": path + "/"})
            return
        document, policy = page("served", beginning(self.server.desk, reviewer))
        self._send(
            HTTPStatus.OK,
            document.encode(),
            "text/html; charset=utf-8",
            {"Content-Security-Policy": policy + "; frame-ancestors 'none'"},
        )

    def do_POST(self) -> None:
        """What the page asks for, as JSON."""
        reviewer, action = self._asked()
        if reviewer is None:
            return
        try:
            given = self._body()
            with self.server.lock:
                told = _act(self.server.desk, reviewer, action, given)
        except InputError as error:
            self._tell(HTTPStatus.CONFLICT, {"error": f"{error.what}: {error.fix}"})
        except EdgemodError as error:
            self._tell(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": str(error)})
        except (ValueError, TypeError, KeyError, AttributeError):
            self._tell(HTTPStatus.BAD_REQUEST, {"error": "this is no request of the page"})
        except Exception as error:  # a mistake of edgemod; its message may quote a record
            kind = type(error).__name__
            self._tell(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"edgemod failed: {kind}"})
        else:
            self._tell(HTTPStatus.OK, told)

    def _asked(self) -> tuple[str | None, str]:
        """Who asks, and for what; None, and an answer is sent, if it is nobody who may."""
        host, path = self.headers.get("Host", ""), urlsplit(self.path).path
        origin = self.headers.get("Origin")
        here = {f"http://{name}" for name in self.server.hosts}
        if (
            host not in self.server.hosts
            or (origin is not None and origin not in here)
            or self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        ):
            self._tell(HTTPStatus.MISDIRECTED_REQUEST, {"error": "asked under another name"})
            return None, ""
        _, _, rest = path.partition("/")
        token, _, action = rest.partition("/")
        found = None
        for known, reviewer in self.server.tokens.items():  # all of them: time tells nothing
            if hmac.compare_digest(known.encode(), token.encode("utf-8", "replace")):
                found = reviewer
        if found is None:
            self._tell(HTTPStatus.NOT_FOUND, {"error": "there is no such page"})
        return found, action

    def _body(self) -> dict[str, Any]:
        if self.headers.get_content_type() != "application/json":
            raise ValueError
        length = int(self.headers.get("Content-Length", ""))
        if not 0 <= length <= _MOST_BODY:
            raise ValueError
        given = json.loads(self.rfile.read(length))
        if not isinstance(given, dict):
            raise TypeError
        return given

    def _tell(self, status: HTTPStatus, told: dict[str, Any]) -> None:
        body = json.dumps(told, allow_nan=False).encode()
        self._send(
            status, body, "application/json", {"Content-Security-Policy": "default-src 'none'"}
        )

    def _send(self, status: HTTPStatus, body: bytes, kind: str, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, **headers, "Content-Type": kind}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: addresses hold tokens."""


def _act(desk: Desk, reviewer: str, action: str, given: dict[str, Any]) -> dict[str, Any]:
    """Do what the page asks for. Raises InputError, or what a wrong request makes of itself."""
    if action == "reveal":
        return desk.reveal(reviewer, int(given["row"]), int(given["level"]))
    if action == "answer":
        category, note, seconds = (given.get(name) for name in ("category", "note", "seconds"))
        desk.answer(
            reviewer,
            int(given["row"]),
            str(given["answer"]),
            category=None if category is None else str(category),
            note=None if note is None else str(note),
            seconds=None if seconds is None else min(max(float(seconds), 0.0), 86_400.0),
            alone=given.get("alone") is True,
        )
    elif action == "skip":
        desk.skip(reviewer, int(given["row"]))
    elif action == "undo":
        if not desk.undo(reviewer):
            raise InputError("there is nothing to undo", fix="You have no answer here yet.")
    elif action != "next":
        raise ValueError(action)
    return desk.next(reviewer)
