"""Files of workers' addresses: which are believed, which are removed, which are let alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from schemas.errors import BadInputError
from streams import address
from streams.address import announce, find_workers, parse_address, withdraw
from streams.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def _health(body: bytes, status: int = 200) -> Iterator[str]:
    """The address of a server whose /health answers so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep stderr for others."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


#: What looks like an address and cannot be looked up.
_ODD = (
    "a b:8411",
    "http://.host:8411",
    "http://a..b:8411",
    f"{'a' * 64}.b:8411",
    "http://ada@127.0.0.1:8411",
    "a\x7f:1",
)


def _settings(folder: Path, **options: str) -> Settings:
    return Settings(data_dir=folder, **options)  # type: ignore[arg-type]  # only texts are given


def test_a_worker_that_answers_is_found_until_it_withdraws(tmp_path: Path) -> None:
    """With all that its file says; an unhealthy one is a worker too."""
    settings = _settings(tmp_path)
    assert find_workers(settings) == []
    with _health(b'{"worker": "w", "healthy": false}', 503) as listening:
        file = announce(settings, "w", listening)
        assert file == tmp_path / "workers" / "w.json"
        assert sorted(file.parent.iterdir()) == [file]
        (found,) = find_workers(settings)
        assert (found.worker, found.address, found.pid) == ("w", listening, os.getpid())
        assert (found.host, found.prefix, found.ledger) == (socket.gethostname(), "driftledger", "events")
        assert found.started_at.endswith("Z")
        withdraw(file)
        assert find_workers(settings) == []
        withdraw(file)


def test_the_workers_of_other_ledgers_are_let_alone(tmp_path: Path) -> None:
    """They share the directory."""
    with _health(b'{"worker": "w"}') as listening:
        file = announce(_settings(tmp_path), "w", listening)
        assert find_workers(_settings(tmp_path, ledger="meters")) == []
        assert find_workers(_settings(tmp_path, prefix="other")) == []
        assert file.exists()


def _rewritten(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_dead_process_is_no_worker(tmp_path: Path) -> None:
    """Its file is removed."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with _health(b'{"worker": "w"}') as listening:
        file = announce(_settings(tmp_path), "w", listening)
        _rewritten(file, pid=ended.pid)
        assert find_workers(_settings(tmp_path)) == []
    assert not file.exists()


def test_a_file_that_may_not_be_removed_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's worker left it behind."""

    def refuse(_file: Path) -> None:
        raise PermissionError

    announce(_settings(tmp_path), "w", "http://127.0.0.1:1")
    monkeypatch.setattr(address, "withdraw", refuse)
    assert find_workers(_settings(tmp_path)) == []


def test_an_address_where_another_answers_or_nobody_listens_is_removed(tmp_path: Path) -> None:
    """Its process id belongs to somebody else by now."""
    settings = _settings(tmp_path)
    for body in (b'{"worker": "another"}', b"not JSON", b"[]", b"{}"):
        with _health(body) as listening:
            file = announce(settings, "w", listening)
            assert find_workers(settings) == []
        assert not file.exists(), body
    with _health(b"") as listening:
        file = announce(settings, "w", listening)
    assert find_workers(settings) == []
    assert not file.exists()


def test_a_worker_that_does_not_answer_in_time_is_let_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be busy, or stand still; it is not found, and its file stays."""
    monkeypatch.setattr(address, "ASK_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = announce(_settings(tmp_path), "w", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert find_workers(_settings(tmp_path)) == []
    assert file.exists()


def test_another_machines_worker_is_let_alone(tmp_path: Path) -> None:
    """Its loopback is not ours, and its process ids neither."""
    file = announce(_settings(tmp_path), "w", "http://127.0.0.1:1")
    _rewritten(file, host="elsewhere")
    assert find_workers(_settings(tmp_path)) == []
    assert file.exists()


def test_a_file_that_is_no_workers_is_passed_over(tmp_path: Path) -> None:
    """Whatever it holds."""
    folder = tmp_path / "workers"
    folder.mkdir()
    for number, content in enumerate((b"", b"\xff", b"[]", b"{}", b'{"worker": 1}')):
        (folder / f"{number}.json").write_bytes(content)
    assert find_workers(_settings(tmp_path)) == []
    assert len(list(folder.iterdir())) == 5


def test_the_longest_running_comes_first(tmp_path: Path) -> None:
    """Whatever the names."""
    with _health(b'{"worker": "b"}') as first, _health(b'{"worker": "a"}') as second:
        announce(_settings(tmp_path), "b", first)
        announce(_settings(tmp_path), "a", second)
        found = find_workers(_settings(tmp_path))
        assert [worker.worker for worker in found] == ["b", "a"]


def test_an_address_may_be_written_without_its_scheme() -> None:
    """What is none is said so, and how one looks."""
    assert parse_address("127.0.0.1:8411") == "http://127.0.0.1:8411"
    assert parse_address("http://localhost:8411/") == "http://localhost:8411"
    assert parse_address("[::1]:8411") == "http://[::1]:8411"
    for text in (
        "",
        "localhost",
        "http://localhost",
        "127.0.0.1:port",
        "https://127.0.0.1:8411",
        "http://[::1:5",
        *_ODD,
    ):
        with pytest.raises(BadInputError, match="Write for example"):
            parse_address(text)
