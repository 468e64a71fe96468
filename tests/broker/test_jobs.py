"""Jobs on a real ledger: hours become archives, these become days, and all of it comes back as it was."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from lifecycle.chunks import Column
from lifecycle.hot_keys import section_key
from lifecycle.hot_store import HotStore
from lifecycle.job_log import JobLog
from lifecycle.job_record import State
from lifecycle.job_run import JobRunningError
from lifecycle.jobs import Jobs
from lifecycle.layout import index_of
from lifecycle.packing import DamagedError
from lifecycle.proving import entries_in
from lifecycle.restoring import UnrestorableError
from lifecycle.steps import Job
from lifecycle.stores_here import StoresHere
from lifecycle.tiers import Grain
from lifecycle.verifying import open_segment, verify
from streams.cli.main import main
from streams.sequence import encode
from tests.broker.harness import Ledger, read_ledger, wait_for
from tests.broker.job_ledgers import DAY_S, fill, later, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lifecycle.manifest import Segment
    from schemas.columns import Entries

EVENTS = 40_000


@pytest.fixture
def ledger(kafka: Any, prefix: str, tmp_path: Path) -> Ledger:
    """Of two partitions, with events, whose worker has ended."""
    made = Ledger(kafka.bootstrap, prefix, tmp_path, {"partitions": 2, "lanes": 1}).create()
    fill(made, EVENTS)
    return made


def segments_of(ledger: Ledger, partition: int) -> tuple[Segment, ...]:
    """What is committed."""
    with Jobs(ledger.settings, ledger.bootstrap) as jobs:
        return jobs.tree().parts.get(partition, ())


def test_what_is_sealed_is_the_ledger(ledger: Ledger) -> None:
    """Hours to files, files to a day; entries come back to the byte, and nothing is done twice."""
    assert run(ledger, Job.SEAL, 1) == []
    assert len(run(ledger, Job.SEAL, 8)) >= 2
    assert run(ledger, Job.SEAL, 8) == []
    for partition in ledger.partitions:
        check_bytes(ledger, partition)
    assert run(ledger, Job.COMPACT, 8.5)
    assert run(ledger, Job.COMPACT, 8.5) == []
    for partition in ledger.partitions:
        check_bytes(ledger, partition)
        assert {segment.grain for segment in segments_of(ledger, partition)} == {Grain.DAILY}
    assert len(run(ledger, Job.VERIFY, 9)) == sum(len(segments_of(ledger, p)) for p in ledger.partitions)
    with JobLog(ledger.bootstrap, ledger.names.jobs) as log:
        history = log.history(10)
    assert [job.state for job in history] == [State.DONE] * len(history)
    assert max(job.did.rows for job in history) > EVENTS // 2


def check_bytes(ledger: Ledger, partition: int) -> None:
    """That the files of a partition hold the records of the ledger."""
    written = read_ledger(ledger, partition)
    found: list[bytes] = []
    with Jobs(ledger.settings, ledger.bootstrap) as jobs:
        for segment in jobs.tree().parts[partition]:
            with open_segment(jobs.files, segment) as (archive, _):
                for _, _, entries in entries_in(archive):
                    encoded, starts = encode(entries)
                    found += [encoded[a:b].tobytes() for a, b in pairwise(starts)]
    records = [record.value() for record in ledger.records(ledger.names.sequenced, partition)]
    assert len(found) > len(written.data) // 2
    assert found == records[: len(found)]


def test_damage_is_found_and_two_jobs_do_not_meet(ledger: Ledger) -> None:
    """A job that has the lease keeps others out; a file that was changed is named."""
    with later(8), Jobs(ledger.settings, ledger.bootstrap) as jobs, Jobs(ledger.settings, ledger.bootstrap) as others:
        met: list[str] = []

        def meet(_step: object, _done: int, _of: int) -> None:
            with pytest.raises(JobRunningError, match="seal runs already"):
                others.run(Job.COMPACT, lambda *_: None)
            met.append("met")

        jobs.run(Job.SEAL, meet)
        assert met
        segment = jobs.tree().parts[0][0]
        verify(jobs.files, segment)
        file = jobs.files.root / segment.path
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        with pytest.raises(DamagedError, match=segment.path):
            jobs.run(Job.VERIFY, lambda *_: None)


def test_commands_say_what_they_do(
    ledger: Ledger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plan, dry run, run, status by tier and by file, history, rules; a rule that cannot be, and damage."""
    for name, value in ledger.environment().items():
        monkeypatch.setenv(name, value)

    def told(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert main(["lifecycle", *arguments, "--output", "jsonl"]) == code, capsys.readouterr().err
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    def archived() -> list[dict[str, Any]]:
        return [tier for tier in told("status") if tier["tier"] not in ("live", "recent")]

    assert told("plan") == told("history") == archived() == []
    assert {(tier["tier"], tier["partition"]) for tier in told("status")} >= {("live", p) for p in ledger.partitions}
    with later(8):
        planned = told("plan", "seal")
        assert {step["partition"] for step in planned} == set(ledger.partitions)
        assert told("run", "seal", "--dry-run") == planned
        hot = told("status")
        assert {tier["tier"] for tier in hot} == {"recent"}
        assert sum(tier["segments"] for tier in hot) == len(planned)
        assert min(tier["entropy_min"] for tier in hot) == pytest.approx(8 * 8 / 7, abs=0.1)
        assert min(tier["age_s_min"] for tier in hot) > 7.9 * DAY_S
        done = told("run", "seal")
        assert [(step["what"], step["rows"]) for step in done] == [(step["what"], step["rows"]) for step in planned]
        tiers = archived()
        assert sum(tier["segments"] for tier in tiers) == len(done)
        assert sum(tier["rows"] for tier in tiers) == sum(step["rows"] for step in done)
        files = told("status", "--files")
        assert sum(file["size_bytes"] for file in files) == sum(tier["size_bytes"] for tier in tiers)
        assert told("run", "compact", "--wait", "5")
        [file, *_] = told("status", "--files")
        [last] = told("history", "--last", "1")
        assert (last["job"], last["state"], last["commits"]) == ("compact", "done", len(ledger.partitions))
        assert (last["bytes_out"] > 0, last["seconds"] > 0, last["rows_per_s"] > 0) == (True, True, True)
        with Jobs(ledger.settings, ledger.bootstrap) as jobs:
            path = jobs.files.root / file["path"]
        path.write_bytes(path.read_bytes()[:-1])
        assert told("run", "verify", code=1) == []
        assert file["path"] in (told("history", "--last", "1")[0]["error"] or "")
    assert main(["lifecycle", "rules"]) == 0
    rules = path.parents[4] / "configuration" / "lifecycle_rules.json"
    assert str(rules) in capsys.readouterr().out
    rules.parent.mkdir()
    rules.write_text('{"version": 1, "recent_dayz": 3}')
    assert main(["lifecycle", "plan"]) == 2
    assert "recent_days" in capsys.readouterr().err


def test_a_manifest_that_is_made_anew_is_filled_from_the_files(ledger: Ledger) -> None:
    """Its topic is deleted and created again, an index is gone: the same files are known, and none was touched."""
    run(ledger, Job.SEAL, 8)
    run(ledger, Job.COMPACT, 8.5)
    known = {partition: segments_of(ledger, partition) for partition in ledger.partitions}
    with Jobs(ledger.settings, ledger.bootstrap) as jobs:
        index = jobs.files.root / index_of(known[0][0].path)
    content = index.read_bytes()
    index.unlink()
    assert len(run(ledger, Job.REINDEX, 9)) == 1
    assert index.read_bytes() == content
    admin = AdminClient({"bootstrap.servers": ledger.bootstrap})
    admin.delete_topics([ledger.names.manifest])[ledger.names.manifest].result(30)
    wait_for(lambda: ledger.names.manifest not in admin.list_topics(timeout=10).topics, "it is deleted")
    ledger.create()
    assert run(ledger, Job.REINDEX, 9)
    for partition in ledger.partitions:
        assert [each._replace(moved_us=0) for each in segments_of(ledger, partition)] == [
            each._replace(moved_us=0) for each in known[partition]
        ]
        check_bytes(ledger, partition)
    assert run(ledger, Job.REINDEX, 9) == []


def test_archives_that_are_lost_are_made_again(ledger: Ledger) -> None:
    """Of what the hot tier holds, and without it of the ledger alone; where that is cut it is said what is lost."""
    run(ledger, Job.SEAL, 8)
    run(ledger, Job.COMPACT, 8.5)
    known = {partition: segments_of(ledger, partition) for partition in ledger.partitions}
    with Jobs(ledger.settings, ledger.bootstrap) as jobs:
        root = jobs.files.root
    (root / known[0][0].path).unlink()
    assert len(run(ledger, Job.RESTORE, 9)) == 1
    shutil.rmtree(ledger.settings.data_dir / "hot")
    (last,) = segments_of(ledger, 1)[-1:]
    (root / last.path).write_bytes(b"junk")
    assert len(run(ledger, Job.RESTORE, 9)) == 1
    assert run(ledger, Job.RESTORE, 9) == []
    for partition in ledger.partitions:
        check_bytes(ledger, partition)
        assert [each.facts for each in segments_of(ledger, partition)] == [each.facts for each in known[partition]]
    run(ledger, Job.VERIFY, 9.5)
    (last,) = segments_of(ledger, 1)[-1:]
    (root / last.path).unlink()
    admin = AdminClient({"bootstrap.servers": ledger.bootstrap})
    topic = TopicPartition(ledger.names.sequenced, 1, last.facts.last_index)
    admin.delete_records([topic])[topic].result(30)
    with pytest.raises(UnrestorableError, match=f"{last.path}.* to {last.facts.last_sequence} of partition 1"):
        run(ledger, Job.RESTORE, 9.5)


def test_files_are_made_again_whatever_is_wrong_with_others(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a damaged hot chunk the ledger is asked; where that is broken, or cut, each file is named at the end."""
    run(ledger, Job.SEAL, 8)
    known = [segments_of(ledger, partition)[0] for partition in ledger.partitions]
    with Jobs(ledger.settings, ledger.bootstrap) as jobs:
        files = [jobs.files.root / segment.path for segment in known]
    (folder,) = ledger.settings.data_dir.glob("hot/*/*/lane-0")
    with closing(HotStore.open(folder)) as store:
        store._database._rocks[section_key(0, known[0].facts.first_sequence, Column.VALUE)] = b"junk"
    written = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    assert len(run(ledger, Job.RESTORE, 9)) == 2
    assert [file.read_bytes() for file in files] == written

    entries = StoresHere.entries

    def broken(stores: StoresHere, partition: int, *place: Any) -> Iterator[Entries]:
        for batch in entries(stores, partition, *place):
            batch.chain_hash[0] ^= partition == 0
            yield batch

    monkeypatch.setattr(StoresHere, "entries", broken)
    for file in files:
        file.unlink()
    with pytest.raises(UnrestorableError, match=f"{known[0].path}.*does not follow") as refused:
        run(ledger, Job.RESTORE, 9)
    assert [segment for segment, _ in refused.value.lost] == known[:1]
    assert [file.exists() for file in files] == [False, True]
    files[1].unlink()
    topic = TopicPartition(ledger.names.sequenced, 1, known[1].facts.last_index)
    admin = AdminClient({"bootstrap.servers": ledger.bootstrap})
    admin.delete_records([topic])[topic].result(30)
    with pytest.raises(UnrestorableError, match=f"{known[0].path}.*{known[1].path}.*does not have its entries"):
        run(ledger, Job.RESTORE, 9)
