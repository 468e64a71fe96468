"""The manifest and the jobs topic on a real broker: one writer, nothing lost or doubled, whoever is killed."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from lifecycle import job_run, manifest_log
from lifecycle.job_log import JobLog
from lifecycle.job_record import Asked, Did, Job, Progress, State, encode
from lifecycle.job_run import HandedOnError, JobRun, JobRunningError
from lifecycle.manifest import Commit, ManifestError, Move, Tree
from lifecycle.manifest import encode as encode_commit
from lifecycle.manifest_log import LeaseLostError, ManifestLease, ManifestLog, read_manifest
from schemas.clock import SystemTime
from schemas.errors import BadInputError, UnreachableError
from schemas.topics import TopicNames, specs, topic_names
from streams.log import Log
from streams.topics_admin import TopicsAdmin
from streams.transactions import Point
from tests.broker.harness import ROOT, time
from tests.core.manifest_histories import commit, replayed, segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIME = SystemTime()


@pytest.fixture
def names(kafka: Any, prefix: str) -> TopicNames:
    """The two topics, there."""
    named = topic_names(prefix, "events")
    wanted = [spec for spec in specs(named, 1, 1, 1, 1_000) if spec.topic.role in ("manifest", "jobs")]
    TopicsAdmin(kafka.bootstrap).create(wanted)
    return named


@pytest.fixture
def bootstrap(kafka: Any) -> str:
    """Of the broker."""
    return str(kafka.bootstrap)


@pytest.fixture
def log(bootstrap: str) -> Iterator[Log]:
    """For questions."""
    log = Log(bootstrap)
    yield log
    log.close()


def run_of(bootstrap: str, names: TopicNames, job: str, **options: Any) -> JobRun:
    """A run."""
    return JobRun(bootstrap, names.jobs, job, **options)


def seal(number: int, partition: int = 0) -> Commit:
    """The commit of that number, where each adds one file of four entries."""
    return commit(number, Move.SEAL, partition, [segment(partition, 4 * number - 3, 4 * number)], [])


def records(log: Log, topic: str) -> list[bytes]:
    """The values of all that is committed."""
    bounds = log.bounds(topic, 0)
    return [message.value() or b"" for message in log.scan(topic, 0, bounds.start, bounds.stable_end)]


def append(bootstrap: str, topic: str, *values: bytes) -> None:
    """Records, by nobody who holds anything."""
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(10) == 0


def test_commits_are_replayed_and_followed(bootstrap: str, names: TopicNames, log: Log) -> None:
    """300 of them: whoever reads them gets the tree that the writer has; who follows reads what is new alone."""
    assert read_manifest(bootstrap, names) == Tree()
    append(bootstrap, names.manifest, *(encode_commit(seal(number)) for number in range(1, 281)))
    follower = ManifestLog(log, names.manifest)
    with run_of(bootstrap, names, "seal") as run, ManifestLease(bootstrap, names, run) as lease:
        assert follower.refresh() == lease.tree
        for number in range(281, 301):
            tree = lease.commit(seal(number))
        assert lease.tree == tree == replayed([seal(number) for number in range(1, 301)])
    found: list[int] = []
    scan = log.scan

    def counted(topic: str, partition: int, begin: int, end: int) -> Any:
        found.append(begin)
        return scan(topic, partition, begin, end)

    log.scan = counted  # type: ignore[method-assign]
    assert follower.refresh() == tree == read_manifest(bootstrap, names)
    assert found[0] >= 280
    assert follower.refresh() is follower.tree
    assert len(records(log, names.manifest)) == 300


def test_a_second_lease_fences_the_first_which_is_told_by_whom(bootstrap: str, names: TopicNames, log: Log) -> None:
    """What the first had committed stays, what it had begun is not there, and it cannot come back."""
    with (
        run_of(bootstrap, names, "seal") as one,
        run_of(bootstrap, names, "compact") as other,
        ManifestLease(bootstrap, names, one) as first,
    ):
        first.commit(seal(1))
        with ManifestLease(bootstrap, names, other, take_over=True) as second:
            assert second.tree.commit == 1
            second.commit(seal(2))
            for _ in range(2):
                with pytest.raises(LeaseLostError, match=rf"is lost to compact of .*{other.job.id}.*began at") as lost:
                    first.commit(seal(2, partition=1))
                assert lost.value.other is not None
                assert lost.value.other.job.id == other.job.id
                assert "run this job again when that has ended" in lost.value.remedy
            second.commit(seal(3))
    assert records(log, names.manifest) == [encode_commit(seal(number)) for number in (1, 2, 3)]


def test_who_was_overtaken_is_told_when_it_looks(bootstrap: str, names: TopicNames) -> None:
    """Before it commits anything: by a run that has begun, or by a commit of nobody's that we know."""
    with run_of(bootstrap, names, "seal") as one, ManifestLease(bootstrap, names, one) as lease:
        assert lease.held() == Tree()
        assert lease.commit(seal(1)) == lease.held()
        append(bootstrap, names.manifest, encode_commit(seal(2)))
        with pytest.raises(LeaseLostError, match="lost to another run: the manifest was at 1, and is at 2"):
            lease.held()
    with (
        run_of(bootstrap, names, "seal") as one,
        run_of(bootstrap, names, "compact") as other,
        ManifestLease(bootstrap, names, one) as first,
        ManifestLease(bootstrap, names, other, take_over=True) as second,
    ):
        with pytest.raises(LeaseLostError, match=rf"lost to compact of .*{other.job.id}"):
            first.held()
        assert second.held().commit == 2


def test_of_two_that_take_over_the_one_that_began_last_goes_on(bootstrap: str, names: TopicNames) -> None:
    """Though the other fenced it: it comes back, and the other is told."""
    with run_of(bootstrap, names, "one") as one, run_of(bootstrap, names, "two") as two:
        first = ManifestLease(bootstrap, names, one, take_over=True)
        with first, ManifestLease(bootstrap, names, two, take_over=True) as second:
            first._fence()  # as if it had been slower than the other between its record and its fence
            second.commit(seal(1))
            with pytest.raises(LeaseLostError, match="is lost to two"):
                first.commit(seal(1))
            second.commit(seal(2))
    assert read_manifest(bootstrap, names).commit == 2


def test_a_fence_without_a_successor_is_no_loss(bootstrap: str, names: TopicNames, log: Log) -> None:
    """The broker fences who stood still for too long: the commit is written by the next producer, once."""
    # Until then the client has heard of its fence, and of the record that failed by it: both are told at once.
    heard = lambda point: time.sleep_s(1.0) if point is Point.HALF_PRODUCED else None  # noqa: E731
    with run_of(bootstrap, names, "seal") as run, ManifestLease(bootstrap, names, run, at=heard) as lease:
        lease.commit(seal(1))
        Producer(
            {"bootstrap.servers": bootstrap, "transactional.id": names.manifest, "log_level": 0}
        ).init_transactions(10)
        assert lease.commit(seal(2)).commit == 2
    assert len(records(log, names.manifest)) == 2


def test_commits_of_nobody_we_know_end_the_lease(bootstrap: str, names: TopicNames, log: Log) -> None:
    """Of another number or content than those that were to be written."""
    with run_of(bootstrap, names, "seal") as run, ManifestLease(bootstrap, names, run) as lease:
        append(bootstrap, names.manifest, encode_commit(seal(1)))
        # by which, depends on whether the marker of its own is there already when the other's is read
        with pytest.raises((ManifestError, LeaseLostError), match=r"commit 1 (does not follow 1|was to be written)"):
            lease.commit(seal(1, partition=1))
    with (
        pytest.raises(ManifestError, match="does not follow"),
        run_of(bootstrap, names, "seal") as run,
        ManifestLease(bootstrap, names, run),
    ):
        pass
    assert len(records(log, names.manifest)) == 2


@pytest.mark.parametrize(
    ("point", "error"),
    [
        (Point.BEGUN, KafkaException),
        (Point.PRODUCED, BufferError),
        (Point.COMMITTING, UnreachableError),
        (Point.COMMITTED, KafkaException),
    ],
)
def test_after_any_error_what_stands_in_the_log_decides(
    bootstrap: str, names: TopicNames, log: Log, point: Point, error: type[Exception]
) -> None:
    """Before the commit it is written again, behind it it is found; once in the log, either way."""
    struck: list[Point] = []

    def strike(now: Point) -> None:
        if now is point and not struck:
            struck.append(now)
            raise error("of the test")

    with (
        run_of(bootstrap, names, "seal") as run,
        ManifestLease(bootstrap, names, run, at=strike) as lease,
    ):
        lease.commit(seal(1))
        lease.commit(seal(2))
    assert struck == [point]
    assert records(log, names.manifest) == [encode_commit(seal(1)), encode_commit(seal(2))]


@pytest.mark.parametrize(
    ("point", "delay_us", "there"),
    [("before", 0, {False}), ("produced", 0, {False}), ("committing", 700, {False, True}), ("committed", 0, {True})],
)
def test_a_writer_that_is_killed_leaves_all_of_a_commit_or_nothing(
    bootstrap: str, prefix: str, names: TopicNames, log: Log, point: str, delay_us: int, there: set[bool]
) -> None:
    """And who runs the job again ends with the commit there once."""
    append(bootstrap, names.manifest, encode_commit(seal(1)))
    wanted = seal(2)
    victim = [bootstrap, prefix, point, str(delay_us), "0", "5", "8"]
    process = subprocess.run(
        [sys.executable, "-m", "tests.broker.lease_victim", *victim], cwd=ROOT, check=False, capture_output=True
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    refused = pytest.raises(JobRunningError, match=r"victim runs already: .*--take-over")
    with refused, run_of(bootstrap, names, "again") as run:
        run.begin()
    with run_of(bootstrap, names, "again") as run, ManifestLease(bootstrap, names, run, take_over=True) as lease:
        assert (lease.tree.commit == 2) in there
        if lease.tree.commit == 1:
            lease.commit(wanted)
        assert lease.tree == replayed([seal(1), wanted])
    assert records(log, names.manifest) == [encode_commit(seal(1)), encode_commit(wanted)]


def test_a_producer_that_is_ended_ends_no_transaction(bootstrap: str, names: TopicNames, log: Log) -> None:
    """An abort that came late could end that of the next one."""
    with run_of(bootstrap, names, "seal") as run, ManifestLease(bootstrap, names, run) as lease:
        producer = lease._producer
        assert producer is not None
        producer.begin_transaction()
        producer.produce(names.manifest, b"open", partition=0)
        producer.flush(10)
        del producer
        lease._end()
        bounds = log.bounds(names.manifest, 0)
        assert (bounds.stable_end, bounds.end) == (0, 1)
        lease._fence()
        assert log.bounds(names.manifest, 0).stable_end == 2  # the record, and the marker of its abort
        assert lease.commit(seal(1)).commit == 1
    assert len(records(log, names.manifest)) == 1


def test_records_that_are_none_are_told_by_their_offset(bootstrap: str, names: TopicNames) -> None:
    """Neither a reader nor a writer goes past them."""
    append(bootstrap, names.manifest, encode_commit(seal(1)))
    append(bootstrap, names.manifest, b'{"commit":2}')
    with pytest.raises(ManifestError, match=r"\.manifest\[0\]@1: commit 2 is none"):
        read_manifest(bootstrap, names)
    with (
        pytest.raises(ManifestError, match=r"\[0\]@1: commit 2 is none"),
        run_of(bootstrap, names, "seal") as run,
        ManifestLease(bootstrap, names, run),
    ):
        pass


def test_commits_that_are_gone_and_a_topic_made_anew_are_found(
    bootstrap: str, names: TopicNames, log: Log, wait_until: Callable[..., None]
) -> None:
    """The first is refused, the second is another manifest."""
    for number in (1, 2):
        append(bootstrap, names.manifest, encode_commit(seal(number)))
    follower = ManifestLog(log, names.manifest)
    assert follower.refresh().commit == 2
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.delete_topics([names.manifest])[names.manifest].result()
    wait_until(lambda: log.topic(names.manifest) is None, 10, "the topic is gone")
    with pytest.raises(UnreachableError, match="topics create"):
        follower.refresh()
    wanted = [spec for spec in specs(names, 1, 1, 1, 1_000) if spec.topic.role == "manifest"]
    TopicsAdmin(bootstrap).create(wanted)
    log.close()  # what it knew of leaders
    assert follower.refresh() == Tree()
    append(bootstrap, names.manifest, encode_commit(seal(1)))
    assert follower.refresh().commit == 1
    follower._offset = 7
    with pytest.raises(ManifestError, match="holds offsets 0 to 1, but is to be read from 7: commits are gone"):
        follower.refresh()


def test_a_commit_that_cannot_follow_is_refused_before_it_is_written(
    bootstrap: str, names: TopicNames, log: Log
) -> None:
    """And one that no topic would take; the lease goes on."""
    with run_of(bootstrap, names, "seal") as run, ManifestLease(bootstrap, names, run) as lease:
        with pytest.raises(ManifestError, match="commit 2 does not follow 0"):
            lease.commit(seal(2))
        assert log.bounds(names.manifest, 0).end == 0
        many = [segment(0, number, number) for number in range(1, 6_001)]
        assert len(lease.commit(commit(1, Move.SEAL, 0, many, [])).parts[0]) == 6_000
    (only,) = records(log, names.manifest)
    assert len(only) > 6 * 1_048_576
    assert len(read_manifest(bootstrap, names).parts[0]) == 6_000


def test_a_broker_that_gives_no_answer_is_told_in_time(
    bootstrap: str, names: TopicNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be written after some tries, too."""
    monkeypatch.setattr(manifest_log, "_BACKOFF_S", 0.01)

    def strike(now: Point) -> None:
        if now is Point.BEGUN:
            raise UnreachableError("of the test")

    with run_of(bootstrap, names, "seal") as run, ManifestLease(bootstrap, names, run, at=strike) as lease:
        with pytest.raises(UnreachableError, match="did not take commit 1 in 5 tries: of the test"):
            lease.commit(seal(1))
        monkeypatch.setattr(lease, "_fence", lambda: strike(Point.BEGUN))
        lease._patience_s = 0.05
        with pytest.raises(UnreachableError, match="gives no clear answer: of the test"):
            lease.commit(seal(1))


# ----------------------------------------------------------------------------------------------------------------- jobs


def test_a_run_that_lives_is_in_the_way_of_another(bootstrap: str, names: TopicNames) -> None:
    """It is named; with take_over, or once it has ended, the other runs. What needs no lease is in nobody's way."""
    with run_of(bootstrap, names, "verify", lease=False) as beside:
        beside.begin()
        with run_of(bootstrap, names, "seal") as one, run_of(bootstrap, names, "compact") as other:
            one.begin()
            with pytest.raises(JobRunningError, match=rf"^seal runs already: .*{one.job.id}.*Wait for its end") as told:
                other.begin()
            assert told.value.other.job.id == one.job.id
            other.begin(take_over=True)
        with run_of(bootstrap, names, "compact") as third:
            third.begin()


def test_a_run_that_was_taken_over_is_in_nobodys_way(bootstrap: str, names: TopicNames) -> None:
    """Though it was heard of just now; who took over is, until its end."""
    with run_of(bootstrap, names, "seal") as one:
        one.begin()
        with run_of(bootstrap, names, "compact") as other:
            other.begin(take_over=True)
            with (
                pytest.raises(JobRunningError, match="compact runs already"),
                run_of(bootstrap, names, "prune") as third,
            ):
                third.begin()
        with run_of(bootstrap, names, "prune") as fourth:
            fourth.begin()


def test_of_two_that_begin_at_once_one_does(bootstrap: str, names: TopicNames) -> None:
    """The one whose record came first."""
    with run_of(bootstrap, names, "one") as one, run_of(bootstrap, names, "two") as two:
        with pytest.raises(JobRunningError, match="one runs already"):
            two.begin()
        one.begin()


def test_a_run_that_waited_before_it_began_yields_to_one_that_runs(bootstrap: str, names: TopicNames) -> None:
    """Though it had told first that it would."""
    with run_of(bootstrap, names, "slow") as slow, run_of(bootstrap, names, "quick") as quick:
        quick.begin(take_over=True)
        with pytest.raises(JobRunningError, match="quick runs already"):
            slow.begin()


def test_a_run_beats_until_it_ends_and_one_that_does_not_is_let_go(
    bootstrap: str, names: TopicNames, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    """What it has done so far is in each beat."""
    with run_of(bootstrap, names, "seal", beat_s=0.05) as run, JobLog(bootstrap, names.jobs) as jobs:
        run.begin()
        run.tell(progress=Progress(3, 12, "files"), did=Did(rows=7))
        run.tell(progress=Progress(4, 12, "files"))

        def beat() -> bool:
            (found,) = jobs.history(1)
            return found.beats > 1 and found.progress == Progress(4, 12, "files") and found.did == Did(rows=7)

        wait_until(beat, 10, "it beats")
    with JobLog(bootstrap, names.jobs) as jobs:
        (found,) = jobs.history(5)
        assert found.state is State.DONE
        assert found.ended_us is not None
        assert found.ended_us >= found.started_us

        silent = found._replace(id="another", state=State.RUNNING, ended_us=None)
        jobs.write(silent)
        with pytest.raises(JobRunningError), run_of(bootstrap, names, "compact") as other:
            other.begin()
        monkeypatch.setattr(job_run, "LOST_MS", 0)
        monkeypatch.setattr("lifecycle.job_record.LOST_MS", 0)
        TIME.sleep_s(0.01)
        with run_of(bootstrap, names, "compact") as other:
            other.begin()
        assert [(job.job, job.state) for job in jobs.history(9)] == [
            ("compact", State.DONE),
            ("compact", State.CANCELLED),
            ("seal", State.LOST),
            ("seal", State.DONE),
        ]
        assert [job.id for job in jobs.history(2)] == [job.id for job in jobs.history(9)[:2]]


def test_a_run_tells_how_it_ended(bootstrap: str, names: TopicNames) -> None:
    """With the error, its remedy where it has one, and whether somebody ended it."""
    ends = {
        "seal": ManifestError("of the test"),
        "compact": KeyboardInterrupt(),
        "prune": LeaseLostError("a topic", "of the test", None),
    }
    for job, end in ends.items():
        with pytest.raises(type(end)), run_of(bootstrap, names, job):
            raise end
    with JobLog(bootstrap, names.jobs) as jobs:
        lost, ended, failed = jobs.history(3)
    assert (failed.job, failed.state, failed.error) == ("seal", State.FAILED, "ManifestError: of the test")
    assert (ended.state, ended.error, ended.remedy) == (State.CANCELLED, "KeyboardInterrupt: ", None)
    assert lost.state is State.FAILED
    assert lost.remedy is not None
    assert "run this job again" in lost.remedy


def test_a_run_waits_for_the_end_of_one_that_lives(
    bootstrap: str, names: TopicNames, wait_until: Callable[..., None]
) -> None:
    """As long as it was told to, and tells meanwhile that it lives; who comes later is behind it."""
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        with run_of(bootstrap, names, "seal") as one:
            one.begin()
            patient = stack.enter_context(run_of(bootstrap, names, "compact", wait_s=60.0, beat_s=0.05))
            first_ms = patient.told_ms
            waiting = pool.submit(patient.begin)
            wait_until(lambda: patient.told_ms > first_ms, 10, "it tells that it waits")
            with pytest.raises(JobRunningError), run_of(bootstrap, names, "prune", wait_s=0.3) as hasty:
                hasty.begin()
            assert not waiting.done()
        waiting.result(30)
        with pytest.raises(JobRunningError, match="compact runs already"), run_of(bootstrap, names, "prune") as later:
            later.begin()


def test_a_run_that_was_asked_for_tells_its_exit_code(bootstrap: str, names: TopicNames) -> None:
    """That of who asked; one that is left to another worker has no end."""
    ends: dict[Exception, tuple[State, int]] = {
        BadInputError("of the test"): (State.FAILED, 2),
        UnreachableError("of the test"): (State.FAILED, 3),
        ManifestError("of the test"): (State.FAILED, 1),
        HandedOnError("of the test"): (State.CANCELLED, 3),
    }
    asked = Asked("an-ask", 3)
    for error, end in ends.items():
        with pytest.raises(type(error)), run_of(bootstrap, names, "demote", lease=False, asked=asked) as run:
            raise error
        assert run.job.asked == asked._replace(code=end[1])
        assert run.job.state is end[0]
    with run_of(bootstrap, names, "demote", lease=False, asked=asked) as run:
        run.want_lease()
        run.begin()
    with JobLog(bootstrap, names.jobs) as jobs:
        (done,) = jobs.history(1)
    assert (done.state, done.lease, done.asked) == (State.DONE, True, asked._replace(code=0))


def test_records_of_nobodys_are_left_out_and_old_runs_are_found_far_back(
    bootstrap: str, names: TopicNames, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However many beats stand between."""
    monkeypatch.setattr("lifecycle.job_log._BACK", 2)
    job = Job("one", "seal", State.DONE, "a-host", 7, 3, 1, 2)
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    producer.produce(names.jobs, encode(job), partition=0)
    for beats in range(50):
        record = job._replace(id="two", state=State.RUNNING, beats=beats, ended_us=None)
        producer.produce(names.jobs, encode(record), partition=0)
    producer.produce(names.jobs, json.dumps({"id": 7}), partition=0)
    producer.produce(names.jobs, None, partition=0)
    assert producer.flush(10) == 0
    with JobLog(bootstrap, names.jobs) as jobs:
        assert [found.id for found in jobs.history(2)] == ["two", "one"]
        assert [found.id for found in jobs.history(1)] == ["two"]
    told = capsys.readouterr()
    assert "job_record_unreadable" in told.out + told.err


def test_a_run_whose_topic_takes_nothing_says_so_and_goes_on(
    bootstrap: str, names: TopicNames, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its beats and its end are told in the log alone; without a beginning it does not begin."""
    with run_of(bootstrap, names, "seal", beat_s=0.01) as run:
        run.begin()

        def refuse(_: Job) -> None:
            raise UnreachableError("of the test")

        monkeypatch.setattr(run._log, "write", refuse)
        TIME.sleep_s(0.1)
    told = capsys.readouterr()
    assert "job_beat_failed" in told.out + told.err
    assert "job_end_not_told" in told.out + told.err
    monkeypatch.setattr(JobLog, "write", lambda _, job: refuse(job))
    with pytest.raises(UnreachableError), run_of(bootstrap, names, "seal"):
        pass


def test_a_question_about_a_topic_that_is_not_there_leaves_no_client_to_collect(bootstrap: str, prefix: str) -> None:
    """Collected in its own thread it would end the process; it ends when it is let go of."""
    gc.disable()
    try:
        admin = TopicsAdmin(bootstrap)
        asked = weakref.ref(admin)
        assert admin.find([prefix]) == {prefix: None}
        del admin
        assert asked() is None
        log = Log(bootstrap)
        asked_log = weakref.ref(log)
        assert log.topic(prefix) is None
        log.close()
        del log
        assert asked_log() is None
    finally:
        gc.enable()
