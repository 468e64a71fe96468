"""Who follows manifest and jobs, over logs of a test: what is read when, and what is said when it cannot be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from structlog.testing import capture_logs

from lifecycle import lifecycle_watch
from lifecycle.asks import Ask, encode_ask
from lifecycle.job_record import encode as encode_job
from lifecycle.lifecycle_watch import LifecycleWatch
from lifecycle.manifest import Move, encode
from lifecycle.steps import Job
from lifecycle.tier_view import Hot
from schemas.errors import UnreachableError
from schemas.topics import topic_names
from streams.log import Bounds, TopicFacts
from streams.settings import Settings
from tests.core.lifecycle_histories import hot_of, run_of
from tests.core.manifest_histories import commit, segment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streams.log import Log

NAMES = topic_names(Settings().prefix, Settings().ledger, Settings().input_topic)


class Logs:
    """Both topics. keys: of records, none unless given. asked: how many questions there were; away: nobody answers."""

    def __init__(self) -> None:
        self.records: dict[str, list[bytes]] = {NAMES.manifest: [], NAMES.jobs: []}
        self.keys: dict[bytes, bytes] = {}
        self.ids = 1
        self.asked = 0
        self.away = False

    def topic(self, _name: str) -> TopicFacts:
        """Its id."""
        self._ask()
        return TopicFacts(str(self.ids), 1)

    def bounds(self, topic: str, _partition: int) -> Bounds:
        """All there is."""
        self._ask()
        count = len(self.records[topic])
        return Bounds(0, count, count)

    def scan(self, topic: str, _partition: int, begin: int, end: int) -> Iterator[Any]:
        """Records."""
        for offset in range(begin, end):
            content = self.records[topic][offset]
            yield SimpleNamespace(
                key=lambda content=content: self.keys.get(content),
                value=lambda content=content: content,
                offset=lambda offset=offset: offset,
                timestamp=lambda offset=offset: (1, offset),
            )

    def close(self) -> None:
        """Nothing."""

    def _ask(self) -> None:
        self.asked += 1
        if self.away:
            raise UnreachableError("Kafka at nowhere did not answer")


@pytest.fixture
def logs() -> Logs:
    """With one file, and one run."""
    made = Logs()
    made.records[NAMES.manifest].append(encode(commit(1, Move.SEAL, 0, [segment(0, 1, 3)], [])))
    made.records[NAMES.jobs].append(encode_job(run_of(1).job))
    return made


def watch_of(logs: Logs, folder: Path, hot: Any = None) -> LifecycleWatch:
    """Over them."""
    watch = LifecycleWatch(Settings(data_dir=folder), "nowhere:1", hot)
    watch._log = cast("Log", logs)
    return watch


def test_nothing_is_read_unless_somebody_asks_for_newer(logs: Logs, tmp_path: Path) -> None:
    """And what is hot half a minute apart at most."""
    looks: list[Hot] = []

    def hot() -> Hot:
        looks.append(hot_of(1, 5))
        return looks[-1]

    watch = watch_of(logs, tmp_path, hot)
    assert (logs.asked, watch.now.tiers) == (0, None)
    known = watch.look(60)
    asked = logs.asked
    assert watch.look(60) is known
    assert logs.asked == asked
    assert watch.look(0).commit == 1
    assert logs.asked == 2 * asked
    assert len(looks) == 1
    assert known.tiers is not None
    assert [row.segments for row in known.tiers.tiers[2:]] == [1, 0]
    assert len(watch.groups()) == 1


def test_what_is_away_is_said_and_what_was_known_stands(logs: Logs, tmp_path: Path) -> None:
    """Of the broker, of the hot store, of rules; each by itself."""
    broken: list[Exception] = []

    def hot() -> Hot:
        if broken:
            raise broken[0]
        return Hot()

    logs.away = True
    watch = watch_of(logs, tmp_path, hot)
    assert watch.look(0) == (None, None, (), (), False, 0, "Kafka at nowhere did not answer")
    logs.away = False
    assert watch.look(0).error is None
    logs.away = True
    broken.append(ZeroDivisionError("a defect"))
    watch._hours_ns = 0
    known = watch.look(0)
    assert (known.commit, len(known.runs)) == (1, 1)
    assert known.error == "ZeroDivisionError('a defect'); Kafka at nowhere did not answer"
    logs.away = False
    broken[:] = [UnreachableError("the store was closed")]
    logs.records[NAMES.jobs].append(encode_job(run_of(0).job))
    known = watch.look(0)
    assert (known.error, len(known.runs)) == ("the store was closed", 2)
    broken.clear()
    rules = watch._root / "configuration" / "lifecycle_rules.json"
    rules.parent.mkdir(parents=True)
    rules.write_text('{"version": 1, "recent_dayz": 3}')
    known = watch.look(0)
    assert "recent_dayz" in (known.error or "")
    assert known.commit == 1
    rules.unlink()
    assert watch.look(0).error is None


def test_topics_that_are_made_anew_are_read_anew(logs: Logs, tmp_path: Path) -> None:
    """And a record that is no run is left out."""
    watch = watch_of(logs, tmp_path)
    assert len(watch.look(0).runs) == 1
    logs.ids += 1
    logs.records = {NAMES.manifest: [], NAMES.jobs: []}
    known = watch.look(0)
    assert (known.commit, known.runs, known.error) == (0, (), None)
    logs.records[NAMES.jobs] += [b"{", encode_job(run_of(7).job)]
    assert [heard.job.id for heard in watch.look(0).runs] == ["run-000007"]


def test_what_workers_are_asked_for_is_no_run(logs: Logs, tmp_path: Path) -> None:
    """It stands among the runs, and is left out without a word; what is neither is told."""
    ask = encode_ask(Ask("an-ask", Job.PROMOTE, None, dry_run=False, take_over=False, host="a-host", pid=7, at_us=30))
    logs.keys = {ask: b"ask/promote"}
    logs.records[NAMES.jobs] += [ask, encode_job(run_of(0).job)]
    with capture_logs() as lines:
        assert len(watch_of(logs, tmp_path).look(0).runs) == 2
    assert lines == []
    logs.records[NAMES.jobs] += [b"{"]
    with capture_logs() as lines:
        assert len(watch_of(logs, tmp_path).look(0).runs) == 2
    assert [line["event"] for line in lines] == ["job_record_unreadable"]


def test_of_jobs_only_the_last_records_are_read_at_first(
    logs: Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said that there were others."""
    monkeypatch.setattr(lifecycle_watch, "RECORDS_MAX", 3)
    logs.records[NAMES.jobs] = [encode_job(run_of(number).job) for number in range(10)]
    known = watch_of(logs, tmp_path).look(0)
    assert (len(known.runs), known.cut) == (3, True)


def test_who_looks_is_not_waited_for_at_the_end(logs: Logs, tmp_path: Path) -> None:
    """A worker that ends waits for no broker."""
    watch = watch_of(logs, tmp_path)
    with watch._lock:
        watch.close()
    watch.close()
