"""What an operator can do to a ledger: refused or halted with the instruction, never a silent renumbering."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, Producer
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from schemas.codec import decode
from schemas.errors import HaltCode, HaltError
from streams.control import encode_control
from streams.judge import Judge
from streams.progress import lift_halt
from tests.broker.harness import (
    POLL_BROKER_S,
    Ledger,
    Load,
    Worker,
    check_exactly_once,
    event_value,
    read_ledger,
    side_by_side,
    time,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    import pytest

    from streams.sequence import Head


def _wait_halted(ledger: Ledger, worker: Worker, partitions: Iterable[int]) -> dict[int, HaltError]:
    """Wait until exactly these partitions stand halted, on the progress topic and in the worker's health."""
    wanted = set(partitions)

    def halted() -> bool:
        status, facts = worker.health()
        return (
            status == 503 and {halt["partition"] for halt in facts["halts"]} == wanted and set(ledger.halts()) == wanted
        )

    wait_for(halted, f"{wanted} halt:\n{worker.output[-2000:]}")
    recorded = ledger.halts()
    said = {halt["partition"]: halt for halt in worker.health()[1]["halts"]}
    for partition, halt in recorded.items():
        assert halt.remedy
        assert (said[partition]["code"], said[partition]["remedy"]) == (halt.code, halt.remedy)
    return recorded


def _send(
    ledger: Ledger,
    partition: int,
    count: int,
    transactional_id: str | None = None,
    *,
    commit: bool = True,
    on_delivery: Callable[[Any, Any], None] | None = None,
) -> None:
    """Events of one partition, each in a request of its own; in one transaction where there is an id."""
    options = {} if transactional_id is None else {"transactional.id": transactional_id}
    producer = Producer({"bootstrap.servers": ledger.bootstrap, "log_level": 0, **options})
    if transactional_id is not None:
        producer.init_transactions(30)
        producer.begin_transaction()
    for number in range(count):
        value = event_value(f"{partition}-{time.monotonic_ns()}-{number}", f"s{partition}", time.now_us())
        producer.produce(ledger.names.input, value, f"s{partition}", partition, on_delivery=on_delivery)
    producer.flush(30)
    if transactional_id is not None and commit:
        producer.commit_transaction(30)
    elif transactional_id is not None:
        producer.abort_transaction(30)


def _set(ledger: Ledger, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for future in ledger.admin.incremental_alter_configs([resource]).values():
        future.result(30)


def _set_stamp(ledger: Ledger, partition: int, value: str, stamp: int) -> int:
    """Set whose time the input's records carry, and send to a partition until they do; how many before that did not.

    The controller answers before the broker that stamps has heard of the setting.
    """
    _set(ledger, ledger.names.input, "message.timestamp.type", value)
    stamps: list[int] = []

    def is_stamped() -> bool:
        _send(ledger, partition, 1, on_delivery=lambda _error, record: stamps.append(record.timestamp()[0]))
        return stamps[-1] == stamp

    wait_for(is_stamped, f"records of the input carry {value}")
    return len(stamps) - 1


def _run_level(ledger: Ledger) -> None:
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        worker.stop()


def _check_halt_bytes(ledger: Ledger, lane: int, partition: int, begins: int, stands: int) -> None:
    """The record as whoever reads the topic without this program finds it: what happened, and what to do."""
    records = [r for r in ledger.records(ledger.names.progress, lane) if r.key() == f"halt/{partition}".encode()]
    value = records[-1].value()
    assert value is not None
    halt = decode("Halt", value)
    assert (halt["partition"], halt["code"]) == (partition, "INPUT_CUT")
    assert f"begins at {begins}, the ledger stands at {stands}" in halt["detail"]
    assert halt["remedy"].startswith("Retention passed the lane.")


def test_lost_input_and_a_lost_tail_halt_their_partitions_and_no_others(
    kafka: Any, prefix: str, tmp_path: Path
) -> None:
    """Retention passes the lane on one partition, the ledger's end is deleted on another; the rest goes on.

    The halt is durable: a new worker finds it. Lifted before anything is mended, it comes back.
    """
    ledger = Ledger(kafka.bootstrap, prefix, tmp_path, {"lanes": 2}).create()
    load = Load(ledger)
    load.send(4_000)
    load.flush()
    _run_level(ledger)
    before = {partition: read_ledger(ledger, partition).head for partition in ledger.partitions}
    load.send(4_000)
    load.flush()
    with ledger.log() as log:
        ends = log.ends(ledger.names.input, ledger.partitions)
    ledger.delete_records(ledger.names.input, 0, ends[0] - 5)
    ledger.delete_records(ledger.names.sequenced, 1, -1)

    with ledger.worker() as worker:
        halts = _wait_halted(ledger, worker, {0, 1})
        assert {p: halt.code for p, halt in halts.items()} == {0: HaltCode.INPUT_CUT, 1: HaltCode.LEDGER_TAIL_LOST}
        ledger.wait_level(worker, [2, 3])
        assert check_exactly_once(ledger, [2, 3])
        worker.stop()
    _check_halt_bytes(ledger, lane=0, partition=0, begins=ends[0] - 5, stands=before[0].input_offset + 1)
    with ledger.worker() as worker:
        _wait_halted(ledger, worker, {0, 1})
        lift_halt(ledger.bootstrap, ledger.names.progress, ledger.lane_of(0), 0)
        wait_for(lambda: worker.output.count("partition_halted") > 0, f"it halts again:\n{worker.output[-2000:]}")
        assert _wait_halted(ledger, worker, {0, 1})[0].code is HaltCode.INPUT_CUT
        load.send(500)
        load.flush()
        ledger.wait_level(worker, [2, 3])
        worker.stop()
    check_exactly_once(ledger, [2, 3])
    assert read_ledger(ledger, 0).head == before[0]
    assert ledger.head(1) is None


def _a_topic_is_missing(bootstrap: str, prefix: str, tmp_path: Path) -> None:
    """A missing topic halts, and a lift goes on once it is back.

    Seen while lanes are live; the snapshots are a cache, so what replaces the topic may be empty.
    """
    ledger = Ledger(bootstrap, prefix, tmp_path, {"partitions": 2}).create()
    load = Load(ledger)
    load.send(3_000)
    load.flush()
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        ledger.admin.delete_topics([ledger.names.snapshots])[ledger.names.snapshots].result(30)
        halts = _wait_halted(ledger, worker, ledger.partitions)
        assert {halt.code for halt in halts.values()} == {HaltCode.TOPIC_MISSING}
        assert "topics create" in halts[0].remedy
        load.send(3_000)
        load.flush()
        ledger.create()
        for partition in ledger.partitions:
            lift_halt(ledger.bootstrap, ledger.names.progress, ledger.lane_of(partition), partition)
        ledger.wait_level(worker)
        wait_for(lambda: worker.health()[0] == 200, "healthy again")
        assert ledger.halts() == {}
        worker.stop()
    assert check_exactly_once(ledger) == 6_000


def _records_carry_the_producers_time(bootstrap: str, prefix: str, tmp_path: Path) -> None:
    """Records that carry the producer's time halt their partition alone; more partitions halt all.

    The setting is changed under a live ledger and changed back; then the partition count is raised.
    """
    ledger = Ledger(bootstrap, prefix, tmp_path, {"partitions": 3, "lanes": 2}).create()
    for partition in ledger.partitions:
        _send(ledger, partition, 10)
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        before = _set_stamp(ledger, 2, "CreateTime", TIMESTAMP_CREATE_TIME)
        assert _wait_halted(ledger, worker, {2})[2].code is HaltCode.TOPIC_CHANGED
        _set_stamp(ledger, 2, "LogAppendTime", TIMESTAMP_LOG_APPEND_TIME)
        for partition in (0, 1):
            _send(ledger, partition, 10)
        ledger.wait_level(worker, [0, 1])
        assert check_exactly_once(ledger, [0, 1]) == 40
        assert len(read_ledger(ledger, 2).data) == 10 + before

        future = ledger.admin.create_partitions([NewPartitions(ledger.names.input, 4)])[ledger.names.input]
        future.result(30)
        halts = _wait_halted(ledger, worker, {0, 1, 2})
        assert {halt.code for halt in halts.values()} == {HaltCode.TOPIC_CHANGED}
        assert "4" in halts[0].detail
        worker.stop()
    assert check_exactly_once(ledger, [0, 1]) == 40


def _a_topic_was_made_again(bootstrap: str, prefix: str, tmp_path: Path) -> None:
    """A topic that was made again is not the topic.

    Under a live worker: whatever it sees first, nothing is renumbered, and a lift does not help.
    """
    ledger = Ledger(bootstrap, prefix, tmp_path, {"partitions": 2}).create()
    load = Load(ledger)
    load.send(2_000)
    load.flush()
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        ledger.admin.delete_topics([ledger.names.input])[ledger.names.input].result(30)
        with ledger.log() as log:
            wait_for(lambda: log.topic(ledger.names.input) is None, "the topic is gone")
        ledger.create()
        for partition in ledger.partitions:
            _send(ledger, partition, 50)
        halts = _wait_halted(ledger, worker, ledger.partitions)
        assert {halt.code for halt in halts.values()} <= {HaltCode.TOPIC_RECREATED, HaltCode.TOPIC_MISSING}
        for partition in ledger.partitions:
            lift_halt(ledger.bootstrap, ledger.names.progress, ledger.lane_of(partition), partition)
        wait_for(
            lambda: (
                {halt.code for halt in ledger.halts().values()} == {HaltCode.TOPIC_RECREATED}
                and len(ledger.halts()) == 2
            ),
            f"both halt again:\n{worker.output[-2000:]}",
        )
        worker.stop()
    assert sum(len(read_ledger(ledger, partition).data) for partition in ledger.partitions) == 2_000


def _sequenced_input_was_deleted(bootstrap: str, prefix: str, tmp_path: Path) -> None:
    """Input that was sequenced and then deleted is no loss.

    All of it consumed, all of it expired; with transactions its last offset is a marker nobody reads.

    The rank counts only what a reader of committed records sees.
    """
    ledger = Ledger(bootstrap, prefix, tmp_path, {"partitions": 2, "heartbeat_interval_ms": 200}).create()
    _send(ledger, 0, 50)
    for number in range(3):
        _send(ledger, 1, 20, f"{prefix}-{number}")
        _send(ledger, 1, 7, f"{prefix}-{number}", commit=False)
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        # A heartbeat sent from now on proves what was read; two ticks later one of those is in the ledger.
        beats = [len(read_ledger(ledger, partition).control) for partition in ledger.partitions]
        wait_for(
            lambda: all(len(read_ledger(ledger, p).control) > beats[p] + 4 for p in ledger.partitions),
            "some heartbeats",
        )
        worker.stop()
    assert check_exactly_once(ledger) == 110
    first = {p: len(read_ledger(ledger, p).data) for p in ledger.partitions}
    assert first == {0: 50, 1: 60}
    for partition in ledger.partitions:
        ledger.delete_records(ledger.names.input, partition, -1)
    with ledger.worker() as worker:
        worker.wait_live(lanes=2)
        for partition in ledger.partitions:
            _send(ledger, partition, 5)
        ledger.wait_level(worker)
        assert worker.health()[0] == 200
        worker.stop()
    assert ledger.halts() == {}
    for partition in ledger.partitions:
        written = read_ledger(ledger, partition)
        sent = ledger.records(ledger.names.input, partition)
        assert written.head.sequence == first[partition] + 5
        assert written.input_offsets[-5:] == [record.offset() for record in sent]


#: A worker that runs for less takes no snapshot.
_NO_SNAPSHOTS = {"snapshot_interval_ms": 86_400_000}


def _heads(ledger: Ledger) -> list[Head | None]:
    return [ledger.head(partition) for partition in ledger.partitions]


def _recreate(ledger: Ledger, topic: str) -> None:
    ledger.admin.delete_topics([topic])[topic].result(30)
    with ledger.log() as log:
        wait_for(lambda: log.topic(topic) is None, "the topic is gone")
    ledger.create()


def _lift_all(ledger: Ledger) -> None:
    for partition in ledger.partitions:
        lift_halt(ledger.bootstrap, ledger.names.progress, ledger.lane_of(partition), partition)


def _progress_was_lost(bootstrap: str, prefix: str, tmp_path: Path, options: Mapping[str, Any]) -> None:
    """A progress topic that was made again under a ledger halts: what was alerted on would be alerted on again.

    With a snapshot that knows better, and without one. A lift does not help.
    """
    ledger = Ledger(bootstrap, prefix, tmp_path, {"partitions": 2, **options}).create()
    load = Load(ledger)
    load.send(8_000)
    load.flush()
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        if options is not _NO_SNAPSHOTS:
            wait_for(
                lambda: all(ledger.records(ledger.names.snapshots, p) for p in ledger.partitions),
                "snapshots",
                poll_s=POLL_BROKER_S,
            )
        worker.stop()
    stand, said = _heads(ledger), ledger.outputs()
    assert sum(len(output) for output in said.values())
    _recreate(ledger, ledger.names.progress)
    load.send(1_000)
    load.flush()
    with ledger.worker() as worker:
        halts = _wait_halted(ledger, worker, ledger.partitions)
        assert {halt.code for halt in halts.values()} == {HaltCode.PROGRESS_LOST}
        _lift_all(ledger)
        halts = _wait_halted(ledger, worker, ledger.partitions)
        assert {halt.code for halt in halts.values()} == {HaltCode.PROGRESS_LOST}
        worker.stop()
    assert _heads(ledger) == stand
    assert ledger.outputs() == said


def _control_was_cut(bootstrap: str, prefix: str, tmp_path: Path) -> None:
    """Control records that are gone before they were sequenced halt; gone after it, they are no loss."""
    ledger = Ledger(bootstrap, prefix, tmp_path, {"partitions": 2}).create()
    for partition in ledger.partitions:
        _send(ledger, partition, 10)
    _run_level(ledger)
    stand = _heads(ledger)
    assert stand[0] is not None
    assert stand[1] is not None
    for partition in ledger.partitions:
        ledger.append(ledger.names.control, partition, b"nobody's record is sequenced too")
        _send(ledger, partition, 10)
    ledger.delete_records(ledger.names.control, 0, -1)
    ledger.delete_records(ledger.names.control, 1, stand[1].control_offset + 1)
    with ledger.worker() as worker:
        halt = _wait_halted(ledger, worker, {0})[0]
        assert halt.code is HaltCode.CONTROL_CUT
        assert f"the ledger stands at {stand[0].control_offset + 1}" in halt.detail
        ledger.wait_level(worker, [1])
        worker.stop()
    assert ledger.head(0) == stand[0]
    assert len(read_ledger(ledger, 1).data) == 20


def _somebody_wrote_into_the_ledger(bootstrap: str, prefix: str, tmp_path: Path) -> None:
    """A foreign record in the ledger halts: at its end at once, in its middle when it is read back."""
    ledger = Ledger(bootstrap, prefix, tmp_path, {"partitions": 3, **_NO_SNAPSHOTS}).create()
    for partition in ledger.partitions:
        _send(ledger, partition, 10)
    with ledger.worker() as worker:
        ledger.wait_level(worker)
        ledger.append(ledger.names.sequenced, 1, b"foreign")
        _send(ledger, 1, 10)
        ledger.wait_level(worker)
        worker.stop()
    ledger.append(ledger.names.sequenced, 0, b"foreign")
    with ledger.log() as log:
        end = log.ends(ledger.names.sequenced, [0])[0]
    _send(ledger, 2, 10)
    with ledger.worker() as worker:
        halts = _wait_halted(ledger, worker, {0, 1})
        assert {halt.code for halt in halts.values()} == {HaltCode.LEDGER_BROKEN}
        ledger.wait_level(worker, [2])
        worker.stop()
    assert check_exactly_once(ledger, [2]) == 20
    with ledger.log() as log:
        assert log.ends(ledger.names.sequenced, [0])[0] == end


def _a_newer_judge_wrote_on(bootstrap: str, prefix: str, tmp_path: Path) -> None:
    """A ledger that says that a newer judge wrote on from somewhere halts an older one there.

    Lifted, it halts again before it takes any of the events that came meanwhile: they are for the newer one to judge.
    """
    ledger = Ledger(bootstrap, prefix, tmp_path, {"partitions": 2}).create()
    newer = {"fold": Judge().name, "version": Judge().version + 1}
    with ledger.worker() as worker:
        worker.wait_live(lanes=2)
        for partition in ledger.partitions:
            _send(ledger, partition, 10)
        ledger.wait_level(worker)
        ledger.append(ledger.names.control, 0, encode_control("FoldVersion", newer, "somebody", "a newer release"))
        halt = _wait_halted(ledger, worker, {0})[0]
        assert halt.code is HaltCode.FOLD_FAILED
        assert f"judge {newer['version']}" in halt.detail
        for partition in ledger.partitions:
            _send(ledger, partition, 10)
        ledger.wait_level(worker, [1])
        stands = ledger.head(0)
        lift_halt(ledger.bootstrap, ledger.names.progress, ledger.lane_of(0), 0)
        assert _wait_halted(ledger, worker, {0})[0].code is HaltCode.FOLD_FAILED
        worker.stop()
    assert check_exactly_once(ledger, [1]) == 20
    now = ledger.head(0)
    assert now is not None
    assert stands is not None
    assert (now.sequence, now.input_offset) == (stands.sequence, stands.input_offset)


def _progress_cannot_be_read(bootstrap: str, prefix: str, tmp_path: Path) -> None:
    """An unreadable record on the progress topic is no progress of its fold, and under the key of a halt it is one.

    Under another key it means nothing. Once lifted, the partition goes on.
    """
    ledger = Ledger(bootstrap, prefix, tmp_path, {"partitions": 3}).create()
    for partition in ledger.partitions:
        _send(ledger, partition, 10)
    _run_level(ledger)
    ledger.append(ledger.names.progress, 0, b"unreadable", Judge().name.encode())
    ledger.append(ledger.names.progress, 1, b"unreadable", b"halt/1")
    ledger.append(ledger.names.progress, 2, b"unreadable", b"\xff/nobody")
    ledger.append(ledger.names.progress, 2, b"unreadable", b"halt/nobody")
    for partition in ledger.partitions:
        _send(ledger, partition, 10)
    with ledger.worker() as worker:
        halts = _wait_halted(ledger, worker, {0, 1})
        assert {p: halt.code for p, halt in halts.items()} == {0: HaltCode.PROGRESS_LOST, 1: HaltCode.LEDGER_BROKEN}
        ledger.wait_level(worker, [2])
        lift_halt(ledger.bootstrap, ledger.names.progress, ledger.lane_of(1), 1)
        ledger.wait_level(worker, [1])
        worker.stop()
    assert check_exactly_once(ledger, [1, 2]) == 40
    assert len(read_ledger(ledger, 0).data) == 10


def test_a_ledger_whose_own_topics_were_damaged_halts(
    kafka: Any, prefix: str, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """Progress lost or spoilt, control records deleted, a foreign record in the ledger, a newer fold."""
    scenarios: tuple[Callable[..., None], ...] = (
        partial(_progress_was_lost, options=_NO_SNAPSHOTS),
        partial(_progress_was_lost, options={"snapshot_interval_ms": 1_000}),
        _control_was_cut,
        _somebody_wrote_into_the_ledger,
        _a_newer_judge_wrote_on,
        _progress_cannot_be_read,
    )
    runs = [partial(run, kafka.bootstrap, f"{prefix}-{n}", tmp_path) for n, run in enumerate(scenarios)]
    side_by_side(subtests, *runs[:3])
    side_by_side(subtests, *runs[3:])


def test_what_changes_under_a_live_ledger_halts_it_or_is_no_loss(
    kafka: Any, prefix: str, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """Topics that are missing, made again, widened or set to the producers' time; input that was deleted when done."""
    scenarios = (_a_topic_is_missing, _records_carry_the_producers_time)
    more = (_a_topic_was_made_again, _sequenced_input_was_deleted)
    for number, pair in enumerate((scenarios, more)):
        runs = [partial(run, kafka.bootstrap, f"{prefix}-{number}-{n}", tmp_path) for n, run in enumerate(pair)]
        side_by_side(subtests, *runs)
