"""What a lane meets when it opens: settings at their ends, records of any size, others that stand in the way."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from schemas.errors import HaltCode, HaltError
from streams.control import encode_control
from streams.lane_clients import producer_settings
from streams.ledger_reader import read_tail
from streams.log import Log, wait_stable
from streams.outbox import byte_rows
from streams.progress import record_halt
from streams.rdkafka import NativeProducer
from streams.restore import entries_between
from streams.topics_admin import TopicsAdmin, specs_of
from streams.windows import DEFAULT_WINDOWS
from tests.broker.harness import wait_for
from tests.broker.ledgers import begin, event, lane_of, names_of, produce, records, sequence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.settings import Settings
    from streams.transactions import Point

NOW_US = 1_700_000_000_000_000


@pytest.fixture
def log(kafka: Any) -> Iterator[Log]:
    """Reads topics."""
    opened = Log(kafka.bootstrap)
    yield opened
    opened.close()


def _open_and_close(settings: Settings) -> list[int]:
    """The partitions that could be opened."""
    lane = lane_of(settings, 0)
    try:
        lane.open()
        return sorted(lane.parts)
    finally:
        lane.close()


def test_a_ledger_of_hashes_alone_keeps_what_it_was_told(kafka: Any, prefix: str, log: Log) -> None:
    """The limit omits values of the input, and no GENESIS or DEFINITION: it opens again, and nothing is told twice."""
    settings = begin(kafka, prefix, max_value_bytes=1, confirm_events=7, windows=DEFAULT_WINDOWS)
    names = names_of(settings)
    produce(settings, names.input, [(b"k", event("pump", "1", NOW_US), [])])
    sequence(settings)
    told = log.bounds(names.control, 0).end
    produce(settings, names.input, [(b"k", event("pump", "2", NOW_US), [])])
    sequence(settings)
    values = [entry["value_state"] for _, entry in records(settings)]
    assert values == ["PRESENT"] * (2 + len(DEFAULT_WINDOWS)) + ["OMITTED"] * 2
    assert log.bounds(names.control, 0).end == told
    lane = lane_of(settings, 0)
    lane.open()
    states = lane.parts[0].states
    lane.close()
    assert states is not None
    assert states.judge.settings.confirm_events == 7
    assert list(states.derive.running) == sorted(window.name for window in settings.windows)


def test_a_record_that_unpacks_to_more_than_a_client_commonly_takes_is_omitted_and_read_again(
    kafka: Any, prefix: str
) -> None:
    """A few kilobytes of zstd that are 120 MB, as the last record of the input."""
    settings = begin(kafka, prefix)
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap, "compression.type": "zstd", "message.max.bytes": 1_000_000_000}
    )
    producer.produce(names_of(settings).input, bytes(120_000_000), partition=0)
    assert producer.flush(60) == 0
    for _ in range(2):
        sequence(settings)
    assert [entry["value_state"] for _, entry in records(settings)] == ["PRESENT", "PRESENT", "OMITTED"]


def test_a_transaction_that_hangs_on_outputs_of_some_partitions_halts_no_other(kafka: Any, prefix: str) -> None:
    """Once its halts are recorded, the lane opens with the rest."""
    settings = begin(kafka, prefix, partitions=3, lanes=1, transaction_timeout_ms=6_000)
    names = names_of(settings)
    sequence(settings)
    foreign = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": f"{prefix}-foreign"})
    foreign.init_transactions(30)
    foreign.begin_transaction()
    outputs = (names.drift_alerts, names.aggregates)
    for partition, topic in enumerate(outputs):
        foreign.produce(topic, b"{}", partition=partition)
    assert foreign.flush(30) == 0
    for partition, topic in enumerate(outputs):
        with pytest.raises(HaltError, match=re.escape(f"{topic}[{partition}]")) as raised:
            _open_and_close(settings)
        assert (raised.value.partition, raised.value.code) == (partition, HaltCode.SECOND_WRITER)
        record_halt(kafka.bootstrap, names.progress, 0, raised.value, "test")
    assert _open_and_close(settings) == [2]
    foreign.abort_transaction(30)


def test_an_index_that_stands_twice_is_never_folded(kafka: Any, prefix: str, log: Log) -> None:
    """A foreign copy of a control entry: judge would not notice, for no sequence is there twice."""
    settings = begin(kafka, prefix)
    names = names_of(settings)
    sequence(settings)
    produce(
        settings,
        names.control,
        [(None, encode_control("Anchor", {"source": "s", "anchor_timestamp": None}, "", ""), [])],
    )
    sequence(settings)
    message = log.last(names.sequenced, 0)
    assert message is not None
    produce(settings, names.sequenced, [(None, message.value(), [])])
    tail = read_tail(log, names.sequenced, 0)
    assert tail is not None
    with pytest.raises(HaltError, match=r"index 3 stands at .* where 4 should") as raised:
        list(entries_between(log, kafka.bootstrap, names.sequenced, 0, tail, 1, 3))
    assert raised.value.code is HaltCode.LEDGER_BROKEN


def test_what_the_eviction_of_many_sources_says_fits_into_one_transaction(kafka: Any, prefix: str, log: Log) -> None:
    """One event may close more alerts than a batch has records."""
    settings = begin(kafka, prefix)
    names = names_of(settings)
    producer = NativeProducer(producer_settings(settings, kafka.bootstrap), f"{prefix}-lane")
    producer.init_transactions(30_000)
    producer.begin()
    rows = byte_rows(0, [(b"source", b"{}")] * 130_000)
    producer.produce(names.drift_alerts, 0, rows.rows)
    producer.commit(60_000)
    producer.destroy()
    assert wait_stable(log, names.drift_alerts, 0, 10_000)
    assert log.bounds(names.drift_alerts, 0).end == 130_001


class _DiedError(Exception):
    """A lane that goes no further."""


def _dies(_point: Point) -> None:
    raise _DiedError


def test_a_changed_setting_is_told_once_however_often_the_lane_opens(kafka: Any, prefix: str, log: Log) -> None:
    """A lane that fails before its record is in the ledger finds it there when it opens again.

    It waits for no input, whatever heartbeat stands before it: it is in force for the first event that comes.
    """
    settings = begin(kafka, prefix)
    names = names_of(settings)
    sequence(settings)
    beat = {"predecessor_appended_ms": None, "input_end_offset": 1, "worker_us": 0}
    produce(settings, names.control, [(None, encode_control("Heartbeat", beat, "test", "tick"), [])])
    before = log.bounds(names.control, 0).end
    for clear_events, told in ((7, 1), (7, 1), (8, 2), (7, 3), (7, 3)):
        chosen = settings.model_copy(update={"clear_events": clear_events})
        with closing(lane_of(chosen, 0, at=_dies)) as lane, pytest.raises(_DiedError):
            lane.open()
        assert log.bounds(names.control, 0).end == before + told
    produce(settings, names.input, [(b"k", event("pump", "1", NOW_US), [])])
    sequence(settings.model_copy(update={"clear_events": 7}))
    kinds = [entry["kind"] for _, entry in records(settings)]
    assert kinds == ["CONTROL", "CONTROL", "CONTROL", "CONTROL", "CONTROL", "DATA"]
    assert log.bounds(names.control, 0).end == before + 3


def test_snapshots_of_another_count_of_lanes_are_deleted_and_nothing_is_lost(kafka: Any, prefix: str) -> None:
    """What the halt says is what helps."""
    settings = begin(kafka, prefix)
    names = names_of(settings)
    produce(settings, names.input, [(b"k", event("pump", "1", NOW_US), [])])
    sequence(settings)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_partitions([NewPartitions(names.snapshots, 2)])[names.snapshots].result(30)
    remedy = f"Delete {names.snapshots} and run `driftledger topics create`, unless the ledger was cut: then restore it"
    with pytest.raises(HaltError, match=re.escape(remedy)) as raised:
        _open_and_close(settings)
    assert raised.value.code is HaltCode.TOPIC_CHANGED
    admin.delete_topics([names.snapshots])[names.snapshots].result(30)
    topics = TopicsAdmin(kafka.bootstrap)
    wait_for(lambda: topics.create(specs_of(settings)).created, "the name is free again")
    assert _open_and_close(settings) == [0]
    assert len(records(settings)) == 3
