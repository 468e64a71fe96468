"""The cut of a ledger: what is proved to be archived goes from its topic, and nothing else, and no answer changes."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import AdminClient

from lifecycle.cutting import NotCutError
from lifecycle.jobs import Jobs
from lifecycle.layout import index_of
from lifecycle.packing import DamagedError
from lifecycle.reader import Reader
from lifecycle.steps import Job
from lifecycle.tiered import MissingChunkError
from lifecycle.tiers import MS_PER_HOUR
from schemas.errors import BadInputError
from streams.aggregates_check import Range
from streams.aggregates_check import check_partition as check_results
from streams.continuity import check_partition
from streams.control import read_control
from streams.drift_log import DriftLog
from streams.drift_warnings import newest_warnings, warnings_from
from streams.ledger_reader import decode_entry
from streams.progress import read_lane
from streams.queries import Ledger as Queries
from tests.broker.harness import Ledger, Load, wait_for
from tests.broker.job_ledgers import fill, later, live, oldest_snapshot, run

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from lifecycle.manifest import Segment
    from streams.continuity import PartitionCheck
    from streams.warning_log import DriftWarning

EVENTS = 20_000
MORE = 3_000
STEPS = ("anchor", "say", "note", "delete", "done")


class Killed(BaseException):
    """In place of a signal: nothing of the run goes on."""


@pytest.fixture
def ledger(kafka: Any, prefix: str, tmp_path: Path) -> Ledger:
    """Of one partition, archived and joined; its worker has ended."""
    options = {"partitions": 1, "lanes": 1, "snapshot_interval_ms": 1_000}
    made = Ledger(kafka.bootstrap, prefix, tmp_path, options).create()
    fill(made, EVENTS, in_snapshots=True)
    rule = {"version": 1, "ledger": "cut_when_proved", "ledger_keep_hours": 0}
    with Jobs(made.settings, made.bootstrap) as jobs:
        folder = jobs.files.root / "configuration"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "retention_policies.json").write_text(json.dumps(rule))
    for job in (Job.SEAL, Job.COMPACT):
        run(made, job, 8.5)
    return made


def cut(ledger: Ledger, die_at: str = "") -> list[tuple[int, int]]:
    """Run the job; the entries that it cut."""
    told: list[tuple[int, int]] = []

    def at(step: str) -> None:
        if step == die_at:
            raise Killed

    with later(9), Jobs(ledger.settings, ledger.bootstrap, at) as jobs:
        jobs.run(Job.CUT, lambda step, _done, _of: told.append((step.first_index, step.last_index)))
    return told


def checked(ledger: Ledger) -> PartitionCheck:
    """By `sequence check`; whole, and compared with all of the input that it has."""
    with Queries(ledger.settings, ledger.bootstrap) as queries:
        found = check_partition(queries, 0)
    assert found.findings == []
    assert found.gone == 0
    return found


def answers(ledger: Ledger, most: int = EVENTS) -> list[pa.Table]:
    """To some questions over everything, without a worker."""
    reader = Reader(ledger.settings)
    found = [
        reader.aggregate(by="source", percentiles=[50, 99]),
        reader.temporal_range_query(limit=most, columns=["partition", "sequence", "event_id", "value", "payload"]),
    ]
    return [table.replace_schema_metadata() for table in found]


def entries(ledger: Ledger) -> dict[int, bytes]:
    """By index, as they stand in the topic."""
    found = [record.value() or b"" for record in ledger.records(ledger.names.sequenced, 0)]
    return {decode_entry(0, value)["index"]: value for value in found}


def cuts_said(ledger: Ledger) -> list[int]:
    """What entries say: the first that stays, of each."""
    found = [read_control(decode_entry(0, value)["value"]) for value in entries(ledger).values()]
    return [body["before_index"] for kind, body in found if kind == "Cut"]


def test_what_is_proved_goes_and_nothing_changes(ledger: Ledger) -> None:
    """Planned, cut, gone on with, checked, asked: exactly once; the entries that stay are those that were there."""
    before, wanted = entries(ledger), answers(ledger)
    with Queries(ledger.settings, ledger.bootstrap) as queries:
        warned = newest_warnings(queries, EVENTS)
    with later(9), Jobs(ledger.settings, ledger.bootstrap) as jobs:
        [planned] = jobs.planned(Job.CUT)
    assert entries(ledger) == before
    with live(ledger):
        assert cut(ledger) == [(planned.first_index, planned.last_index)]
        assert cut(ledger) == []
    assert planned.last_index > EVENTS // 2
    after = entries(ledger)
    assert min(after) == planned.last_index + 1
    assert {index: after[index] for index in before if index > planned.last_index} == {
        index: value for index, value in before.items() if index > planned.last_index
    }
    assert cuts_said(ledger) == [planned.last_index + 1]
    found = checked(ledger)
    assert found.first_index == planned.last_index + 1
    assert f"entries 1 to {planned.last_index} are in archives" in found.note
    assert answers(ledger) == wanted
    check_what_reads_from_the_beginning(ledger, planned.last_index + 1, warned)

    shutil.rmtree(ledger.settings.data_dir / "hot")
    assert answers(ledger) == wanted  # from the archives' end on, judged from the cut
    check_who_has_no_archives(ledger)
    load = Load(ledger, seed=2)
    load.send(MORE)
    load.flush()
    with live(ledger) as worker:
        ledger.wait_level(worker)
        wait_for(lambda: worker.output.count("hot_tier_level") == 1, "it is hot again")
    again = checked(ledger)
    assert again.head is not None
    assert again.head.sequence == EVENTS + MORE
    assert again.compared == found.compared + MORE
    everything = answers(ledger, EVENTS + MORE)
    assert everything[1].slice(0, EVENTS) == wanted[1]
    with Queries(ledger.settings, ledger.bootstrap) as queries:
        first = queries.first(0).sequence
        assert sum(1 for _ in queries.get_events_by_sequence_range(0, first, EVENTS + MORE)) == again.compared
        for ask in (queries.get_events_by_sequence_range, queries.verify_sequence_continuity):
            with pytest.raises(BadInputError, match=f"begins at sequence {first}"):
                ask(0, first - 1, EVENTS)
        assert queries.verify_sequence_continuity(0, first, EVENTS + MORE) == (True, [])
        told: list[str] = []
        assert len(DriftLog(queries, told.append).newest(5)) == 5
        assert told == []
        listed = list(DriftLog(queries, told.append).between(0, 1 << 42))
        assert min(entry.index for entry in listed) > planned.last_index
        assert f"entries 1 to {planned.last_index} of partition 0 are in archives alone, and not listed" in told


def check_who_has_no_archives(ledger: Ledger) -> None:
    """It is told, and gets no answer without what was cut."""
    elsewhere = Reader(ledger.settings.model_copy(update={"data_dir": ledger.folder / "nothing"}))
    with pytest.raises(MissingChunkError, match=r"partition 0 from sequence 1 on .* or the archive_uri, that has"):
        elsewhere.aggregate(by="source")
    with pytest.raises(MissingChunkError, match=r"is not there\)"):
        elsewhere.temporal_range_query(limit=EVENTS)


def check_what_reads_from_the_beginning(ledger: Ledger, first: int, warned: list[DriftWarning]) -> None:
    """Results agree with what is left; warnings are those of what is left, and it is told that there were others."""
    kept = [warning for warning in warned if warning.index > first]
    with Queries(ledger.settings, ledger.bootstrap) as queries:
        checks = check_results(queries, 0, Range())
        assert [check.differing for check in checks] == [0] * len(checks)
        assert len(checks) > 1
        told: list[str] = []
        assert newest_warnings(queries, EVENTS, tell=told.append) == kept
        assert list(warnings_from(queries, {0: 1}, tell=told.append)) == kept[::-1]
        assert (
            told == [f"entries 1 to {first} of partition 0 were cut from the ledger; their warnings are not listed"] * 2
        )
        assert newest_warnings(queries, 1, tell=told.append) == kept[:1]
        assert len(told) == 2


def test_a_run_that_is_ended_anywhere_is_run_again(ledger: Ledger) -> None:
    """Between any two of its steps; nothing goes before the ledger says so."""
    before = entries(ledger)
    with live(ledger):
        for step in STEPS:
            with pytest.raises(Killed):
                cut(ledger, die_at=step)
            if step != "done":
                assert min(entries(ledger)) == 1
            assert len(cuts_said(ledger)) == max(0, STEPS.index(step) - 1)
            with ledger.log() as log:
                noted = read_lane(log, ledger.names.progress, 0).cuts
            assert bool(noted) is (step in ("delete", "done"))
        assert cut(ledger) == []
    kept = entries(ledger)
    assert 1 < min(kept) <= max(before)
    checked(ledger)
    with live(ledger):
        pass


def test_what_the_rules_keep_stays_and_whole_files_before_it_go(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without any rule: the first file is a week older than the last, and none of it is needed."""
    with Jobs(ledger.settings, ledger.bootstrap) as jobs:
        first_last = jobs.tree().parts[0][0].facts.last_index
        (jobs.files.root / "configuration" / "retention_policies.json").write_text('{"version": 1}')
    load = Load(ledger, seed=2)
    load.send(EVENTS)
    load.flush()
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        wait_for(lambda: worker.output.count("hot_tier_level") == 1, "it is hot")
        wait_for(lambda: oldest_snapshot(ledger) > 2 * EVENTS, "all snapshots are of its end", poll_s=1)
        worker.stop()

    def at_ms(file: Segment) -> int:
        older_ms = 200 * MS_PER_HOUR if file.facts.first_index == 1 else 0
        return max(file.facts.order_ms, file.facts.authority_ms_max) - older_ms

    monkeypatch.setattr("lifecycle.plans._at_ms", at_ms)
    for job in (Job.SEAL, Job.COMPACT):
        with later(8.5), Jobs(ledger.settings, ledger.bootstrap) as jobs:
            jobs.run(job, lambda *_: None)
            assert len(jobs.tree().parts[0]) == 2
    with live(ledger):
        assert cut(ledger) == [(1, first_last)]
        assert cut(ledger) == []
    assert min(entries(ledger)) == first_last + 1
    checked(ledger)


def test_nothing_is_cut_that_was_lost_with_the_manifest(ledger: Ledger) -> None:
    """Whoever plans it or runs it is told what is missing; once it is back, and the manifest made anew, it goes."""
    fill(ledger, EVENTS, seed=2)
    assert run(ledger, Job.SEAL, 8.5)
    with Jobs(ledger.settings, ledger.bootstrap) as jobs:
        first, *others = jobs.tree().parts[0]
        files = [jobs.files.root / path for path in (first.path, index_of(first.path))]
    assert others
    lost = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    make_manifest_anew(ledger)
    missing = f"entries 1 to {first.facts.last_index} are in no archive"
    with pytest.raises(NotCutError, match=missing):
        cut(ledger)
    with later(9), Jobs(ledger.settings, ledger.bootstrap) as jobs:
        with pytest.raises(NotCutError, match=missing):
            jobs.planned(Job.CUT)
        assert [step for step in jobs.planned() if step.job is Job.CUT] == []
    assert min(entries(ledger)) == 1
    for file, content in zip(files, lost, strict=True):
        file.write_bytes(content)
    make_manifest_anew(ledger)
    run(ledger, Job.COMPACT, 8.5)
    with live(ledger):
        ((cut_from, last),) = cut(ledger)
    assert cut_from == 1
    assert min(entries(ledger)) == last + 1
    checked(ledger)


def make_manifest_anew(ledger: Ledger) -> None:
    """Its topic is lost, and filled from the files."""
    topic, admin = ledger.names.manifest, AdminClient({"bootstrap.servers": ledger.bootstrap})
    admin.delete_topics([topic])[topic].result(30)
    wait_for(lambda: topic not in admin.list_topics(timeout=10).topics, "it is deleted")
    ledger.create()
    assert run(ledger, Job.REINDEX, 9)


def test_nothing_is_cut_on_a_file_that_is_damaged(ledger: Ledger) -> None:
    """The run names the file; the ledger stays, and says nothing."""
    with Jobs(ledger.settings, ledger.bootstrap) as jobs:
        segment = jobs.tree().parts[0][0]
        file = jobs.files.root / segment.path
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with live(ledger), pytest.raises(DamagedError, match=segment.path):
        cut(ledger)
    assert min(entries(ledger)) == 1
    assert cuts_said(ledger) == []


def test_nothing_is_cut_without_a_lane_or_a_snapshot(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can say it in the ledger, or a fold would be read from the beginning."""
    monkeypatch.setattr("lifecycle.cutting.SEQUENCED_TIMEOUT_S", 1.0)
    with pytest.raises(NotCutError, match="Start `driftledger worker`"):
        cut(ledger)
    assert min(entries(ledger)) == 1
    for slot in (0, 1):
        ledger.append(ledger.names.snapshots, 0, None, b"derive/0/%d/head" % slot)
    assert cut(ledger) == []
    assert min(entries(ledger)) == 1


def test_a_beginning_that_no_cut_took_is_told(ledger: Ledger) -> None:
    """Deleted by hand, or further than it was cut."""
    with live(ledger):
        ((_, last),) = cut(ledger)
    first = ledger.records(ledger.names.sequenced, 0)[0].offset() or 0
    ledger.delete_records(ledger.names.sequenced, 0, first + 5)
    with Queries(ledger.settings, ledger.bootstrap) as queries:
        finding = check_partition(queries, 0).findings[0]
    assert finding.wrong == "START_LOST"
    assert finding.index > last + 1
    with ledger.worker() as worker:
        wait_for(ledger.halts, f"halted:\n{worker.output[-2000:]}", poll_s=1)
    assert "cuts took the entries before" in str(ledger.halts()[0])
