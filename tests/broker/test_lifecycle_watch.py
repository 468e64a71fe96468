"""Manifest and jobs of a real ledger, followed: no more is read than came, and a worker tells what commands tell."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from lifecycle import lifecycle_watch
from lifecycle.job_log import JobLog
from lifecycle.jobs import Jobs
from lifecycle.lifecycle_watch import LifecycleWatch
from lifecycle.steps import Job
from streams.address import find_workers
from streams.log import Log
from tests.broker.harness import Ledger, wait_for
from tests.broker.job_ledgers import fill, run
from tests.core.lifecycle_histories import run_of

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = 20_000


@pytest.fixture
def ledger(kafka: Any, prefix: str, tmp_path: Path) -> Ledger:
    """Of two partitions, with events, whose worker has ended."""
    made = Ledger(kafka.bootstrap, prefix, tmp_path, {"partitions": 2, "lanes": 1}).create()
    fill(made, EVENTS)
    return made


def test_it_is_followed_as_it_grows(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each record is read once; files are the tree's, runs the topic's; what is made anew is read anew."""
    read: list[tuple[str, int]] = []
    scan = Log.scan

    def counted(self: Log, topic: str, partition: int, begin: int, end: int) -> Any:
        for message in scan(self, topic, partition, begin, end):
            read.append((topic, message.offset() or 0))
            yield message

    watch = LifecycleWatch(ledger.settings, ledger.bootstrap)
    monkeypatch.setattr(Log, "scan", counted)
    try:
        empty = watch.look(0)
        assert (empty.commit, empty.runs, empty.error) == (0, (), None)
        for job, days in ((Job.SEAL, 8.0), (Job.COMPACT, 8.5), (Job.VERIFY, 9.0)):
            run(ledger, job, days)
            read.clear()
            known = watch.look(0)
            assert known.error is None
            assert known.runs[0].job.job == job
            mine = [place for place in read if place[0] in (ledger.names.manifest, ledger.names.jobs)]
            assert len(mine) == len(set(mine))
            assert watch.look(60) is known
            read.clear()
            again = watch.look(0)
            assert again.commit == known.commit
            assert read == []
        with Jobs(ledger.settings, ledger.bootstrap) as jobs:
            tree = jobs.tree()
        assert {path: file.rows for path, file in watch._files.files.items()} == {
            each.path: each.facts.rows for part in tree.parts.values() for each in part
        }
        assert known.commit == tree.commit
        with JobLog(ledger.bootstrap, ledger.names.jobs) as log:
            assert [heard.job for heard in known.runs] == log.history(10)
        admin = AdminClient({"bootstrap.servers": ledger.bootstrap})
        topics = [ledger.names.manifest, ledger.names.jobs]
        for future in admin.delete_topics(topics).values():
            future.result(30)
        wait_for(lambda: not {*topics} & admin.list_topics(timeout=10).topics.keys(), "they are deleted")
        gone = watch.look(0)
        assert (gone.commit, f"topic {topics[0]} does not exist" in (gone.error or "")) == (tree.commit, True)
        ledger.create()
        anew = watch.look(0)
        assert (anew.commit, anew.runs, anew.error) == (0, (), None)
    finally:
        watch.close()


def test_what_is_no_commit_is_said_and_what_is_known_stands(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the offset; and of jobs no more is read than is to be."""
    run(ledger, Job.SEAL, 8)
    with JobLog(ledger.bootstrap, ledger.names.jobs) as log:
        for number in range(30):
            log.write(run_of(number).job)
    monkeypatch.setattr(lifecycle_watch, "RECORDS_MAX", 10)
    watch = LifecycleWatch(ledger.settings, ledger.bootstrap)
    known = watch.look(0)
    assert (len(known.runs), known.cut) == (10, True)
    offset = _produce(ledger)
    later = watch.look(0)
    assert later.commit == known.commit
    assert f"{ledger.names.manifest}[0]@{offset}: a record of the manifest is none" in (later.error or "")
    watch.close()


def _produce(ledger: Ledger) -> int:
    offsets: list[int] = []
    producer = Producer({"bootstrap.servers": ledger.bootstrap})
    producer.produce(ledger.names.manifest, b"{}", on_delivery=lambda _, message: offsets.append(message.offset() or 0))
    producer.flush(30)
    return offsets[0]


def test_a_worker_tells_what_commands_tell(ledger: Ledger) -> None:
    """Over HTTP, in its metrics, and as a file; what is hot with it."""
    run(ledger, Job.SEAL, 8)
    run(ledger, Job.COMPACT, 8.5)
    with Jobs(ledger.settings, ledger.bootstrap) as jobs:
        files = [each for part in jobs.tree().parts.values() for each in part]
    with ledger.worker() as worker:
        worker.wait_live()
        wait_for(lambda: worker.output.count("hot_tier_level") == 2, "both are hot")
        (found,) = find_workers(ledger.settings)

        def get(path: str) -> dict[str, Any]:
            with urllib.request.urlopen(found.address + path, timeout=30) as answer:  # noqa: S310 - its own loopback
                return dict(json.load(answer))

        status = get("/lifecycle/status")
        rows = {(row["tier"], row["store"]): row for row in status["tiers"]}
        assert rows["historical", "archive"]["size_bytes"] == sum(each.size_bytes for each in files)
        assert sum(group["rows"] for group in status["archives"]) == sum(each.facts.rows for each in files)
        hot = rows["live", "hot"]["rows"] + rows["recent", "hot"]["rows"]
        assert hot >= sum(each.facts.rows for each in files)
        assert status["error"] is None
        runs = get("/lifecycle/history")["runs"]
        assert [one["job"] for one in runs] == ["compact", "seal"]
        assert worker.metric('driftledger_tier_bytes{store="archive",tier="historical"}') == sum(
            each.size_bytes for each in files
        )
        assert worker.metric('driftledger_job_last_state{job="seal",state="done"}') == 1
        assert worker.metric('driftledger_job_rows_total{job="seal"}') == sum(each.facts.rows for each in files)
        with urllib.request.urlopen(found.address + "/csv/lifecycle", timeout=30) as answer:  # noqa: S310 - as above
            assert len(answer.read().splitlines()) == 3
        with pytest.raises(urllib.error.HTTPError, match="400"):
            get("/lifecycle/history?last=0")
        worker.stop()
