"""A ledger of two partitions, the first archives of which were pruned, is cut by runs that are killed, and read."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle.jobs import Jobs
from lifecycle.reader import Reader
from lifecycle.steps import Job
from streams.cli.main import main
from streams.continuity import check_partition
from streams.drift_warnings import newest_warnings, warnings_from
from streams.progress import read_lane
from streams.queries import Ledger as Queries
from tests.broker.harness import Ledger, Load, wait_for
from tests.broker.job_ledgers import later, live, oldest_snapshot
from tests.broker.job_victim import Fate, Plan
from tests.broker.test_job_kills import Victims

if TYPE_CHECKING:
    from pathlib import Path

#: Its short form is that of one partition, in test_cut.py.
pytestmark = pytest.mark.soak
PARTITIONS = range(2)
PARTS = (44_000, 40_000)
DAYS = 30
RULES = {"version": 1, "archives_days": 10, "ledger": "cut_when_proved", "ledger_keep_hours": 0}


def run(ledger: Ledger, job: Job) -> list[tuple[int, int, int]]:
    """A job; partition, first and last index of what it did."""
    told: list[tuple[int, int, int]] = []
    with later(DAYS), Jobs(ledger.settings, ledger.bootstrap) as jobs:
        jobs.run(job, lambda step, *_: told.append((step.partition, step.first_index, step.last_index)))
    return told


def grow(ledger: Ledger, load: Load, events: int) -> None:
    """More events, hot, and all snapshots of their end."""
    load.send(events)
    load.flush()
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        wait_for(lambda: worker.output.count("hot_tier_level") == len(PARTITIONS), "it is hot")
        heads = {partition: ledger.head(partition) for partition in PARTITIONS}
        least = min(head.index for head in heads.values() if head is not None)
        wait_for(lambda: oldest_snapshot(ledger) >= least - 100, "all snapshots are of its end", poll_s=1)
        worker.stop()


@pytest.fixture
def ledger(kafka: Any, prefix: str, tmp_path: Path) -> Ledger:
    """Of two partitions, the first part of which was archived and pruned, the second archived and joined."""
    options = {"partitions": 2, "lanes": 1, "snapshot_interval_ms": 1_000, "lifecycle_interval_s": 0}
    made = Ledger(kafka.bootstrap, prefix, tmp_path, options).create()
    with Jobs(made.settings, made.bootstrap) as jobs:
        folder = jobs.files.root / "configuration"
        folder.mkdir(parents=True)
        (folder / "retention_policies.json").write_text(json.dumps(RULES))
    load = Load(made)
    for events in PARTS:
        grow(made, load, events)
        assert run(made, Job.SEAL)
    assert len({step[0] for step in run(made, Job.PRUNE)}) == len(PARTITIONS)
    assert run(made, Job.COMPACT)
    return made


def firsts(ledger: Ledger) -> list[int]:
    """The first index that each partition of the ledger has."""
    with Queries(ledger.settings, ledger.bootstrap) as queries:
        return [queries.first(partition).index for partition in PARTITIONS]


@pytest.mark.parametrize("step", [1, 40], ids=["killed at every operation", "killed at some"])
def test_partitions_are_cut_whatever_kills_the_run(
    ledger: Ledger, step: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind what was pruned and what is archived; chain, results, warnings and questions are those of before."""
    for name, value in ledger.environment().items():
        monkeypatch.setenv(name, value)
    wanted = Reader(ledger.settings).aggregate(by="source").replace_schema_metadata()
    with Queries(ledger.settings, ledger.bootstrap) as queries:
        warned = [newest_warnings(queries, 10**6, partition=partition) for partition in PARTITIONS]
    with Jobs(ledger.settings, ledger.bootstrap) as jobs:
        archived = {partition: jobs.tree().parts[partition] for partition in PARTITIONS}
    assert all(segments[0].facts.first_index > 1 for segments in archived.values())
    killed = 0
    with live(ledger), contextlib.closing(Victims(ledger)) as victims:
        while True:
            names = ledger.names
            plan = Plan("cut", DAYS, 1 + killed * step, str(ledger.folder), names.manifest, names.jobs)
            fate = victims.fate_of(plan)
            if fate.code == 0:
                break
            assert fate == Fate(-signal.SIGKILL, 0, "")
            killed += 1
            check_said(ledger)
        assert killed >= 2
        assert run(ledger, Job.CUT) == []
    assert all(
        first > segments[0].facts.first_index for first, segments in zip(firsts(ledger), archived.values(), strict=True)
    )
    assert Reader(ledger.settings).aggregate(by="source").replace_schema_metadata() == wanted

    for command in (("check", "aggregates"), ("sequence", "check")):
        assert main([*command]) == 0, capsys.readouterr()
    told: list[str] = []
    with Queries(ledger.settings, ledger.bootstrap) as queries:
        for partition, first in zip(PARTITIONS, firsts(ledger), strict=True):
            kept = [warning for warning in warned[partition] if warning.index > first]
            assert newest_warnings(queries, 10**6, partition=partition, tell=told.append) == kept
            assert list(warnings_from(queries, {partition: 1}, tell=told.append)) == kept[::-1]
            text = (
                f"entries 1 to {first} of partition {partition} were cut from the ledger; their warnings are not listed"
            )
            assert told == [text] * 2
            told.clear()
            assert newest_warnings(queries, 1, partition=partition, tell=told.append) == kept[:1]
            assert told == []

    shutil.rmtree(ledger.settings.data_dir / "hot")
    with live(ledger) as worker:
        wait_for(lambda: worker.output.count("hot_tier_level") == len(PARTITIONS), "it is hot again")
        rows = Reader(ledger.settings).temporal_range_query(limit=10**6, columns=["partition", "sequence"])
    for partition in PARTITIONS:
        found = [row["sequence"] for row in rows.to_pylist() if row["partition"] == partition]
        head = ledger.head(partition)
        assert head is not None
        assert found == list(range(archived[partition][0].facts.first_sequence, head.sequence + 1))


def check_said(ledger: Ledger) -> None:
    """That nothing is gone that the ledger does not say is cut."""
    with ledger.log() as log:
        cuts = read_lane(log, ledger.names.progress, 0).cuts
    with Queries(ledger.settings, ledger.bootstrap) as queries:
        for partition in PARTITIONS:
            first = queries.first(partition).index
            assert first == 1 or first <= cuts[partition].before_index
            assert check_partition(queries, partition).findings == []
