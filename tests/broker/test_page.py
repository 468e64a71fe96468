"""What the page is sent, by a worker on a real broker: boards of its lanes, alerts of the topic, the hot tier's log."""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pytest

from schemas.clock import SystemTime
from streams.address import find_workers
from streams.live_view import View, applied
from tests.broker.harness import Ledger, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

time = SystemTime()
_TIMEOUT_S = 60


@pytest.fixture(scope="module")
def served(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ledger, Worker]]:
    """A ledger with a worker."""
    ledger = Ledger(kafka.bootstrap, f"page-{time.now_us():x}", tmp_path_factory.mktemp("page")).create()
    with ledger.worker() as worker:
        worker.wait_live(ledger.settings.lanes)
        yield ledger, worker
        worker.stop()


def _address(ledger: Ledger) -> str:
    (found,) = find_workers(ledger.settings)
    return found.address.removeprefix("http://")


def _put(ledger: Ledger, source: str, count: int, ahead_us: int = 0) -> None:
    """So many events of a source, whose clock is ahead."""
    line = {"source": source, "kind": "k", "local_timestamp": time.now_us() + ahead_us}
    body = b"".join(json.dumps(line).encode() + b"\n" for _ in range(count))
    with closing(HTTPConnection(_address(ledger), timeout=_TIMEOUT_S)) as connection:
        connection.request("POST", "/put", body, {"Content-Type": "application/x-ndjson"})
        assert connection.getresponse().status == 200


def _until(ledger: Ledger, path: str, wanted: Callable[[View], object]) -> View:
    """What a stream says, once it is so."""
    deadline_ns = time.monotonic_ns() + _TIMEOUT_S * 1_000_000_000
    view: View | None = None
    with closing(HTTPConnection(_address(ledger), timeout=_TIMEOUT_S)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        while time.monotonic_ns() < deadline_ns:
            line = answer.readline()
            if line.startswith(b"data: "):
                view = applied(view, json.loads(line.removeprefix(b"data: ")))
                if wanted(view):
                    return view
    pytest.fail(f"{path} never said it: {view}")


def _of_fast(view: View) -> Mapping[str, Any]:
    """The row of the source whose clock is wrong; on a busy machine the events of the other one may be late."""
    return next((row for row in view.rows.values() if row["source"] == "fast"), {})


def test_a_wrong_clock_is_seen_in_every_view(served: tuple[Ledger, Worker]) -> None:
    """The fleet, the source, its alert and its entries; what was there before anybody looked, and what comes."""
    ledger, _ = served
    _put(ledger, "steady", 5)
    view = _until(ledger, "/live/fleet", lambda view: view.facts["found"] == 1)
    assert next(iter(view.rows.values()))["source"] == "steady"
    _put(ledger, "fast", 8, 9_000_000)
    row = _of_fast(_until(ledger, "/live/fleet?severity=RED", _of_fast))
    assert (row["state"], row["cause"]) == ("RED", "AHEAD")
    path = f"/live/source?source=fast&partition={row['partition']}"
    assert _until(ledger, path, lambda view: view.facts["clock"]).facts["clock"]["alert"] == "RED"
    alert = _of_fast(_until(ledger, "/live/alerts", _of_fast))
    assert alert["text"].startswith("fast is ")
    view = _until(ledger, "/live/log?source=fast", lambda view: len(view.order) == 8)
    assert {entry["severity"] for entry in view.rows.values()} == {"RED"}
    view = _until(ledger, "/live/status", lambda view: len(view.order) == ledger.settings.partitions)
    assert sum(part["sequence"] for part in view.rows.values()) == 13


def test_a_file_is_to_be_had_without_a_page(served: tuple[Ledger, Worker]) -> None:
    """By one request, of all there is."""
    ledger, _ = served
    _put(ledger, "=1+1", 3)
    _until(ledger, "/live/fleet?search=1%2B1", lambda view: view.facts["found"] == 1)
    with closing(HTTPConnection(_address(ledger), timeout=_TIMEOUT_S)) as connection:
        connection.request("GET", "/csv/fleet?sort=source&desc=0")
        rows = list(csv.reader(io.StringIO(connection.getresponse().read().decode(), newline="")))
    assert "'=1+1" in [row[0] for row in rows[1:]]
