"""Puts and questions from Python to servers that stand in for workers: what is sent, and which answers are believed."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from lifecycle import client as client_module
from lifecycle import local
from lifecycle.client import Client, PutError
from lifecycle.local import LocalPartitions
from lifecycle.owned import NOT_KEPT
from lifecycle.reader import Reader
from schemas.clock import SystemTime
from schemas.errors import BadInputError, UnreachableError
from streams.address import ASK_TIMEOUT_S, announce
from streams.arrow_events import open_table
from streams.cli.main import main
from streams.log import TopicFacts
from streams.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

time = SystemTime()
TAKEN = {"accepted": 1, "refused": [], "positions": []}


class _Listening:
    """The address of a server, and the bodies that were put to it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.bodies: list[bytes] = []


@contextmanager
def _listening(answers: dict[str, Any], status: int = 200, **headers: str) -> Iterator[_Listening]:
    """Answers each path as said, or as what is called says."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            found.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer()

        def _answer(self) -> None:
            answer = answers[self.path.partition("?")[0]]
            body = json.dumps(answer() if callable(answer) else answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, text in headers.items():
                self.send_header(name.replace("_", "-"), text)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep stderr for others."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = _Listening(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "answer"),
    [(200, {"ok": True}), (200, []), (404, {"detail": "Not Found"}), (503, {"detail": "busy"}), (503, "busy")],
)
def test_an_answer_that_is_no_workers_is_not_believed(status: int, answer: Any) -> None:
    """Another program on that port took nothing, whatever it says."""
    with (
        _listening({"/put": answer}, status, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT") as other,
        Client(other.address) as client,
        pytest.raises(PutError, match=r"what answers at .* is no worker") as failed,
    ):
        client.temporal_put([{"source": "s"}])
    assert failed.value.result.accepted == 0


def test_a_question_to_what_is_no_worker_is_told() -> None:
    """Also where it names a date to come again."""
    with (
        _listening({"/get": {"detail": "busy"}}, 503, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT") as other,
        pytest.raises(UnreachableError, match="answered 503 and not why"),
    ):
        Reader(other.address).temporal_get("s")


def test_the_worker_that_was_named_is_told_and_not_the_topic_of_another_ledger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whose input it is only that worker knows."""
    file = tmp_path / "one.jsonl"
    file.write_text('{"source": "s"}\n')
    with _listening({"/put": TAKEN}) as worker:
        assert main(["put", str(file), "--worker", worker.address]) == 0
        assert f"1 event put into the input of the worker at {worker.address}, 0 bad" in capsys.readouterr().err


def test_lines_that_were_refused_are_told_also_where_the_others_were_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sent again they would be refused again."""
    file = tmp_path / "three.jsonl"
    file.write_text('{"source": "s"}\n' * 3)
    answer = {"accepted": 1, "refused": [{"line": 2, "reason": "it is odd"}], "lost": 1, "error": "Kafka is away"}
    with _listening({"/put": answer}, 503) as worker:
        assert main(["put", str(file), "--worker", worker.address]) == 3
    told = capsys.readouterr().err
    assert f"{file}:2: it is odd" in told
    assert "1 events were taken, and not all of those from line 1 on: Kafka is away" in told


def test_a_body_that_was_too_slow_does_not_hide_what_was_taken_before_it() -> None:
    """408 is no fault of the events."""
    with (
        _listening({"/put": {"error": "the body did not arrive within 30 s. Send it again"}}, 408) as worker,
        Client(worker.address) as client,
        pytest.raises(PutError, match="did not arrive") as failed,
    ):
        client.temporal_put([{"source": "s"}])
    assert failed.value.result.accepted == 0


def test_a_long_dictionary_does_not_go_along_with_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are as long as their own texts."""
    monkeypatch.setattr(client_module, "EVENT_BYTES_MAX", 20_000)
    texts = pa.array([f"{number:03d}" * 300 for number in range(100)])
    table = pa.table({"source": ["s"] * 100, "payload": texts.dictionary_encode()})
    with _listening({"/put": TAKEN}) as worker, Client(worker.address) as client:
        assert client.temporal_put(table).refused == ()
        sent = [text for body in worker.bodies for text in open_table(body)["payload"].to_pylist()]
    assert sent == texts.to_pylist()


def _place(partition: int, standing: str, reached: int = 0, head: int = 9) -> dict[str, Any]:
    return {"partition": partition, "standing": standing, "reached": reached, "head": head, "error": None}


def test_partitions_that_the_settings_do_not_know_leave_no_answer_without_them(tmp_path: Path) -> None:
    """The workers know better how many there are."""
    settings = Settings(data_dir=tmp_path, partitions=2)
    answers = {"/health": {"worker": "w"}, "/hot": {"partitions": [_place(p, "level") for p in range(4)]}}
    with _listening(answers) as worker:
        announce(settings, "w", worker.address)
        with pytest.raises(BadInputError, match=r"hold partitions \[2, 3\], and the settings say that there are 2"):
            Reader(settings).aggregate()


def test_without_a_worker_the_ledgers_topic_says_how_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer or more: neither is answered."""

    class Log:
        def __init__(self, _bootstrap: str) -> None: ...

        def topic(self, _name: str) -> TopicFacts:
            return TopicFacts("id", 4)

        def close(self) -> None: ...

    monkeypatch.setattr(local, "Log", Log)
    for count in (2, 16):
        settings = Settings(data_dir=tmp_path, partitions=count)
        with pytest.raises(BadInputError, match=f"has 4 partitions, and the settings say that there are {count}"):
            LocalPartitions(settings, "127.0.0.1:1", [0])


def test_a_worker_that_keeps_nothing_is_not_waited_for(tmp_path: Path) -> None:
    """The ledger is asked in its place, and here nobody answers for that."""
    settings = Settings(data_dir=tmp_path, partitions=1)
    answers = {"/health": {"worker": "w"}, "/hot": {"partitions": [_place(0, NOT_KEPT)]}}
    with _listening(answers) as worker:
        announce(settings, "w", worker.address)
        with pytest.raises(UnreachableError, match="no Kafka runs in"):
            Reader(settings).aggregate()


def test_a_worker_that_does_not_say_what_it_holds_is_waited_for_as_long_as_any_that_is_asked(tmp_path: Path) -> None:
    """Two seconds, not a minute: it is paused, and the ledger is asked in its place."""
    settings = Settings(data_dir=tmp_path, partitions=1)
    goes_on = threading.Event()
    with _listening({"/health": {"worker": "w"}, "/hot": lambda: goes_on.wait(20)}) as worker:
        announce(settings, "w", worker.address)
        begun_ns = time.monotonic_ns()
        try:
            with pytest.raises(UnreachableError, match="no Kafka runs in"):
                Reader(settings).aggregate()
        finally:
            took_s = (time.monotonic_ns() - begun_ns) / 1e9
            goes_on.set()
    assert took_s < ASK_TIMEOUT_S + 8


@pytest.mark.parametrize(
    ("standing", "reached", "asked"), [("level", 12, "successor"), ("behind", 4, "successor"), (NOT_KEPT, 0, None)]
)
def test_of_two_workers_that_claim_a_partition_the_successor_is_asked(
    standing: str, reached: int, asked: str | None, tmp_path: Path
) -> None:
    """The former was paused, and is level with what there was then. None: the ledger is."""
    settings = Settings(data_dir=tmp_path, partitions=1)
    former = {"/health": {"worker": "former"}, "/hot": {"partitions": [_place(0, "level", 9)]}}
    after = {"/health": {"worker": "successor"}, "/hot": {"partitions": [_place(0, standing, reached, 12)]}}
    with _listening(former) as first, _listening(after) as second:
        announce(settings, "former", first.address)
        announce(settings, "successor", second.address)
        address = second.address if asked else None
        assert Reader(settings).assigned(None) == {address: (0,)}
