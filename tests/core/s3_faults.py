"""A way to a store of objects on which requests are counted, and go wrong as they are told to."""

from __future__ import annotations

import contextlib
import http.client
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What is between this hop and the next only.
_HOP = ("connection", "expect", "keep-alive", "transfer-encoding")


@dataclass(slots=True)
class Fault:
    """What becomes of the next requests of a method whose path has a text.

    kind: a status that is answered; "hang": no answer; "cut": half of the body; "flip": a bit of the body is another;
    "lost": it is done, and the answer does not come.
    """

    method: str
    text: str
    kind: int | str
    times: int = 1_000_000


@dataclass(slots=True)
class Way:
    """What passed: method, path and range; and what is to go wrong."""

    address: str
    faults: list[Fault] = field(default_factory=list)
    passed: list[tuple[str, str, str]] = field(default_factory=list)
    #: Set at the end: nobody hangs any longer.
    over: threading.Event = field(default_factory=threading.Event)

    def take(self, method: str, path: str) -> int | str | None:
        """What is to become of a request."""
        for fault in self.faults:
            if fault.times and fault.method == method and fault.text in path:
                fault.times -= 1
                return fault.kind
        return None

    def count(self, method: str, text: str = "") -> int:
        """How many have passed."""
        return sum(each[0] == method and text in each[1] for each in self.passed)


class _Server(ThreadingHTTPServer):
    """way: what passes; store: the address behind it."""

    daemon_threads = True
    way: Way
    store: str


class _Handler(BaseHTTPRequestHandler):
    """Of a server whose `way` it is."""

    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def pass_on(self) -> None:
        """One request."""
        self.server.way.passed.append((self.command, self.path, self.headers.get("Range", "")))
        body = self.body()
        fault = self.server.way.take(self.command, self.path)
        if fault == "hang":
            self.server.way.over.wait(60)
        elif isinstance(fault, int):
            self.send_response(fault)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            answer, content = self.ask(body)
            if fault == "flip":
                content = bytes([content[0] ^ 1]) + content[1:]
            if fault != "lost":
                self.hand_back(answer, content, cut=fault == "cut")
        self.close_connection = isinstance(fault, str)

    def hand_back(self, answer: http.client.HTTPResponse, content: bytes, *, cut: bool) -> None:
        """What the store said."""
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in (*_HOP, "content-length"):
                self.send_header(name, value)
        is_head = self.command == "HEAD"
        length = answer.getheader("Content-Length") if is_head else len(content)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        if not is_head:
            self.wfile.write(content[: len(content) // 2] if cut else content)

    def body(self) -> bytes:
        """What was sent, also in chunks."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def ask(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        """What the store says."""
        connection = http.client.HTTPConnection(self.server.store, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP:
                    connection.putheader(name, value)
            chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
            if chunked:
                connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders([body] if chunked else body or None, encode_chunked=chunked)
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()


for _method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
    setattr(_Handler, f"do_{_method}", _Handler.pass_on)


@contextlib.contextmanager
def way_to(address: str) -> Iterator[Way]:
    """A way to the store at an address, with an address of its own."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.store, server.way = address, Way(f"127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.way
    finally:
        server.way.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
