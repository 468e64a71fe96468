"""Ledgers on a real broker for tests of what is read from them: written by lanes, and copied with things changed."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Producer

from schemas.canonical import CHAIN_START, AuthorityKind, EntryFields, EntryKind, ValueState, chain_hash
from schemas.clock import SystemTime
from schemas.codec import encode
from schemas.topics import TopicNames, topic_names
from streams.derive import Derive
from streams.folds import Configured, Folds
from streams.judge import Judge
from streams.lane import Lane
from streams.ledger_reader import decode_entry
from streams.log import Log, wait_stable
from streams.settings import Settings
from streams.topics_admin import TopicsAdmin, specs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pytest

    from schemas.columns import Entries
    from streams.judge import JudgeState, Outputs
    from streams.transactions import Point

#: A record as it is produced: key, value, headers.
Message = tuple[bytes | None, bytes | None, list[tuple[str, str | bytes | None]]]
#: A ledger record as it lies in the topic: key, entry.
Record = tuple[bytes | None, dict[str, Any]]

LEVEL_TIMEOUT_S = 60
JUDGE: Final = Judge()
DERIVE: Final = Derive()


@dataclass(frozen=True)
class Noted(Judge):
    """A judge of any version.

    first: by partition the first index it stepped over. loaded: the partitions that it had a snapshot of.
    """

    number: int = Judge().version
    first: dict[int, int] = field(default_factory=dict)
    loaded: set[int] = field(default_factory=set)

    @property
    def version(self) -> int:
        """As said."""
        return self.number

    def step(self, state: JudgeState, entries: Entries) -> Outputs:
        """Note where it began."""
        self.first.setdefault(state.partition, int(entries.index[0]))
        return Judge.step(self, state, entries)

    def load(self, partition: int, data: bytes) -> JudgeState:
        """Note that it could."""
        state = Judge.load(self, partition, data)
        self.loaded.add(partition)
        return state


def names_of(settings: Settings) -> TopicNames:
    """All topics of the ledger."""
    return topic_names(settings.prefix, settings.ledger, settings.input_topic)


def begin(kafka: Any, prefix: str, **choices: Any) -> Settings:
    """A new ledger with its topics, of one partition, without heartbeats and windows unless chosen otherwise.

    Its alerts wait for events alone, and not for time.
    """
    prompt = {"hold_ms": 0, "fleet_hold_ms": 0}
    chosen: dict[str, Any] = {"partitions": 1, "heartbeat_interval_ms": 0, "windows": (), **prompt, **choices}
    settings = Settings(bootstrap=kafka.bootstrap, prefix=prefix, **chosen)
    TopicsAdmin(kafka.bootstrap).create(specs_of(settings))
    return settings


def use(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands of this process mean that ledger."""
    for name in ("bootstrap", "prefix", "ledger", "input_topic", "partitions", "lanes", "heartbeat_interval_ms"):
        monkeypatch.setenv(f"DRIFTLEDGER_{name.upper()}", str(getattr(settings, name)))


def event(source: str, event_id: str, local_us: int, value: float | None = 1.5, payload: bytes = b"") -> bytes:
    """An event's bytes."""
    fields = {
        "event_id": event_id,
        "source": source,
        "local_timestamp": local_us,
        "kind": "level",
        "value": value,
        "payload": payload,
    }
    return encode("Event", fields)


_WAITING_MAX = 50_000


def produce(settings: Settings, topic: str, messages: Iterable[Message], partition: int = 0) -> None:
    """Append messages; returns when all are acknowledged."""
    producer = Producer({"bootstrap.servers": settings.bootstrap, "linger.ms": 5, "message.max.bytes": 20_000_000})
    failed: list[str] = []

    def delivered(error: Any, _message: Any) -> None:
        if error is not None:
            failed.append(error.str())

    for key, value, headers in messages:
        while len(producer) >= _WAITING_MAX:  # the client refuses one more than 100,000
            producer.poll(0.1)
        producer.produce(topic, value, key, partition, headers=headers, on_delivery=delivered)
        producer.poll(0)
    assert producer.flush(30) == 0
    assert not failed


def lane_of(
    settings: Settings,
    number: int,
    judge: Judge | None = JUDGE,
    at: Callable[[Point], None] = lambda _point: None,
    *,
    derive: Derive = DERIVE,
) -> Lane:
    """A lane of a ledger, not opened. judge: None for one without any fold."""
    partitions = range(number, settings.partitions, settings.lanes)
    assert settings.bootstrap is not None
    return Lane(
        settings,
        settings.bootstrap,
        names_of(settings),
        number,
        partitions,
        None if judge is None else Configured(settings.judge(), settings.windows, Folds(judge, derive)),
        worker="test",
        at=at,
    )


def sequence(settings: Settings, judge: Judge | None = JUDGE, *, derive: Derive = DERIVE) -> None:
    """Take everything that stands in the input and the control topic into the ledger, then stop."""
    assert settings.bootstrap is not None
    names, time = names_of(settings), SystemTime()
    log = Log(settings.bootstrap)
    for number in range(settings.lanes):
        with contextlib.closing(lane_of(settings, number, judge, derive=derive)) as lane:
            lane.open()
            partitions = list(lane.parts)
            inputs, controls = log.ends(names.input, partitions), log.ends(names.control, partitions)
            deadline_ns = time.monotonic_ns() + LEVEL_TIMEOUT_S * 10**9
            while any(
                part.head.input_offset + 1 < inputs[p] or part.head.control_offset + 1 < controls[p]
                for p, part in lane.parts.items()
            ):
                assert time.monotonic_ns() < deadline_ns, "the lane does not reach the end of its input"
                lane.commit(lane.fetch())
        # A commit is answered before its markers stand in every partition.
        outputs = [(topic, p) for topic in (names.sequenced, *names.outputs) for p in partitions]
        for topic, partition in [(names.progress, number), *outputs]:
            assert wait_stable(log, topic, partition, LEVEL_TIMEOUT_S * 1_000), topic
    log.close()


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[None]:
    """All lanes of a ledger, one thread each, for the length of a block."""
    ended = threading.Event()
    failed: list[BaseException] = []

    def run(number: int) -> None:
        lane = lane_of(settings, number)
        try:
            lane.open()
            while not ended.is_set():
                lane.commit(lane.fetch())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the test
            failed.append(error)
        finally:
            lane.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(settings.lanes)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not failed, failed


def records(settings: Settings, partition: int = 0) -> list[Record]:
    """Every record of a ledger partition."""
    assert settings.bootstrap is not None
    log, topic = Log(settings.bootstrap), names_of(settings).sequenced
    bounds = log.bounds(topic, partition)
    found = [
        (message.key(), decode_entry(partition, message.value()))
        for message in log.scan(topic, partition, bounds.start, bounds.stable_end)
    ]
    log.close()
    return found


def copy_with(settings: Settings, name: str, change: Callable[[list[Record]], Iterable[Record | bytes]]) -> Settings:
    """The same ledger under another name, over the same input, with records changed; bytes are written as they are."""
    copied = settings.model_copy(update={"ledger": name})
    assert settings.bootstrap is not None
    TopicsAdmin(settings.bootstrap).create(specs_of(copied))
    changed: list[Message] = [
        (None, record, []) if isinstance(record, bytes) else (record[0], encode("LedgerEntry", record[1]), [])
        for record in change(records(settings))
    ]
    produce(copied, names_of(copied).sequenced, changed)
    return copied


def rechained(changed: Iterable[Record]) -> Iterator[Record]:
    """Records with indexes, sequences and the chain written anew, as somebody would who hides a change."""
    before, numbered = CHAIN_START, 0
    for index, (key, entry) in enumerate(changed, start=1):
        numbered += entry["kind"] == "DATA"
        fields = EntryFields(
            kind=EntryKind[entry["kind"]],
            index=index,
            sequence=numbered,
            input_offset=entry["input_offset"],
            control_offset=entry["control_offset"],
            input_leader_epoch=entry["input_leader_epoch"],
            authority_timestamp_ms=entry["authority_timestamp"],
            authority_kind=AuthorityKind[entry["authority_kind"]],
            value_state=ValueState[entry["value_state"]],
            value_length=entry["value_length"],
            value_hash=entry["value_hash"],
            headers=[(header["name"], header["value"]) for header in entry["headers"]],
            key=key,
        )
        before = chain_hash(before, fields)
        yield key, {**entry, "index": index, "sequence": numbered, "chain_hash": before}
