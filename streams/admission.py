"""What must hold before a lane may write a partition: the checks of a start, and genesis.

Problem: an operator deletes or recreates a topic, raises a partition count, retention passes the lane, an election
loses records. A ledger that went on then would renumber or skip silently. So a lane first compares what is there
with what the ledger itself says, and anything that does not fit is a halt with the instruction how to leave it.

The order matters: the caller has fenced earlier owners (init_transactions) before it asks, so the tail cannot move.

GENESIS: a lane that finds an empty ledger, and nothing that contradicts emptiness, writes a GENESIS record to the
control topic (unless one for this input is there already) and starts from it: the first such record is entry 1, and
what stands before it on the control topic belongs to no ledger. So a crash between the two cannot start a second,
different ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from schemas.canonical import value_hash
from schemas.codec import DecodeError, Framing, decode
from schemas.errors import HaltCode, HaltError
from streams.aggregates import record_of
from streams.alerts import is_of_worker
from streams.control import encode_control, read_control
from streams.ledger_reader import decode_entry, find_offset, read_tail
from streams.log import offset_of, wait_stable
from streams.sequence import Head

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from schemas.topics import TopicNames
    from streams.cuts import Cut
    from streams.ledger_reader import Tail
    from streams.log import Log, TopicFacts

FORMAT_VERSION = 1
SECOND_WRITER_REMEDY = (
    "Find its producer with `kafka-transactions.sh find-hanging` and abort it: one partition of ours has one writer"
)
INPUT_TRUNCATED_REMEDY = "The input lost acknowledged records (unclean election?): restore it, or begin a new ledger"
#: The last heartbeat is looked for among so many control entries at the end of the ledger; nearly all are heartbeats.
_HEARTBEAT_SEARCH_CONTROLS = 100


class Deployment(NamedTuple):
    """What genesis pins: it may not change under a ledger."""

    cluster_id: str
    input_id: str
    partitions: int
    lanes: int


class Admitted(NamedTuple):
    """A partition that may be written: its head, its tail (None before genesis), the input offset to read on from.

    leader_epoch: of the last input record in the ledger, -1 for none.
    """

    head: Head
    tail: Tail | None
    resume_offset: int
    leader_epoch: int


class Caused(NamedTuple):
    """Where a record stands that an entry caused, and which entry that was: its sequence, or its index."""

    where: str
    by: Literal["sequence", "index"]
    number: int


def topic_missing(partition: int, name: str) -> HaltError:
    """The halt of a partition for want of a topic."""
    remedy = "Run `driftledger topics create`; if the topic held data, restore it from a copy first"
    return HaltError(partition, HaltCode.TOPIC_MISSING, f"topic {name} does not exist", remedy)


def deployment(log: Log, names: TopicNames, partition: int) -> Deployment:
    """The facts of the cluster now. Raises HaltError naming a topic that is missing."""
    facts: dict[str, TopicFacts] = {}
    for name in names:
        found = log.topic(name)
        if found is None:
            raise topic_missing(partition, name)
        facts[name] = found
    partitions = facts[names.input].partitions
    for name in (names.control, names.sequenced, *names.outputs):
        if facts[name].partitions != partitions:
            detail = f"{names.input} has {partitions} partitions, {name} has {facts[name].partitions}"
            raise HaltError(partition, HaltCode.TOPIC_CHANGED, detail, _COUNT_REMEDY)
    lanes = facts[names.progress].partitions
    if facts[names.snapshots].partitions != lanes:
        detail = f"{names.progress} has {lanes} partitions, {names.snapshots} has {facts[names.snapshots].partitions}"
        remedy = (
            f"Delete {names.snapshots} and run `driftledger topics create`, unless the ledger was cut: then restore it "
            "from a copy"
        )
        raise HaltError(partition, HaltCode.TOPIC_CHANGED, detail, remedy)
    return Deployment(log.cluster_id(), facts[names.input].topic_id, partitions, lanes)


_COUNT_REMEDY = (
    "Partition and lane counts are fixed when a ledger begins, and Kafka lowers none: begin a new ledger under another "
    "name, and leave the topics of this one as they are"
)


def admit(
    log: Log, names: TopicNames, partition: int, now: Deployment, *, known_index: int, stable_timeout_ms: int,
    write_control: Callable[[int, bytes], int], cut: Cut | None = None,
) -> Admitted:  # fmt: skip
    """Check a partition and return where to go on.

    known_index: the highest ledger index any progress record or snapshot speaks of, 0 for none. cut: the last that is
    noted.
    write_control(partition, value) appends to the control topic and returns once it is acknowledged. Raises HaltError.
    """
    if not wait_stable(log, names.sequenced, partition, stable_timeout_ms):
        detail = f"a foreign transaction stays open on {names.sequenced}[{partition}]"
        raise HaltError(partition, HaltCode.SECOND_WRITER, detail, SECOND_WRITER_REMEDY)
    caused = outputs_end(log, names, partition)  # before the tail: another owner may go on meanwhile
    tail = read_tail(log, names.sequenced, partition)
    if tail is None:
        if known_index:
            detail = f"{names.sequenced}[{partition}] is empty, but index {known_index} was committed"
            remedy = "Restore the ledger topic from a copy; a ledger is never started again at 1"
            raise HaltError(partition, HaltCode.LEDGER_TAIL_LOST, detail, remedy)
        check_outputs(names, partition, Head(), caused)
        return _begin(log, names, partition, now, write_control)
    if tail.head.index < known_index:
        detail = f"{names.sequenced}[{partition}] ends at index {tail.head.index}, but {known_index} was committed"
        raise HaltError(partition, HaltCode.LEDGER_TAIL_LOST, detail, "Restore the end of the ledger topic from a copy")
    check_outputs(names, partition, tail.head, caused)
    genesis = _genesis(log, names, partition, cut)
    _compare(partition, genesis, now)
    resume = _check_input(log, names, partition, tail, int(genesis["base_offset"]))
    _check_control(log, names, partition, tail)
    return Admitted(tail.head, tail, resume, _check_last_record(log, names, partition, tail))


def _begin(
    log: Log, names: TopicNames, partition: int, now: Deployment, write: Callable[[int, bytes], int]
) -> Admitted:
    """The head before entry 1: its control offset is that of the record before GENESIS."""
    found = _find_genesis(log, names, partition, now)
    if found is None:
        body = {
            "cluster_id": now.cluster_id,
            "topic": names.input,
            "topic_id": now.input_id,
            "partition": partition,
            "partitions": now.partitions,
            "lanes": now.lanes,
            "base_offset": log.bounds(names.input, partition).start,
            "format_version": FORMAT_VERSION,
        }
        write(partition, encode_control("Genesis", body, "driftledger", "the ledger partition begins"))
        found = _find_genesis(log, names, partition, now)
        if found is None:
            detail = f"the GENESIS record written to {names.control}[{partition}] is not there"
            remedy = "Check the retention of the control topic with `driftledger topics check`"
            raise HaltError(partition, HaltCode.CONTROL_CUT, detail, remedy)
    offset, genesis = found
    _compare(partition, genesis, now)
    start = log.bounds(names.input, partition).start
    if start > genesis["base_offset"]:
        raise _input_cut(names, partition, start, int(genesis["base_offset"]))
    return Admitted(Head(control_offset=offset - 1), None, int(genesis["base_offset"]), -1)


def _find_genesis(log: Log, names: TopicNames, partition: int, now: Deployment) -> tuple[int, dict[str, Any]] | None:
    bounds = log.bounds(names.control, partition)
    for message in log.scan(names.control, partition, bounds.start, bounds.stable_end):
        kind, body = read_control(message.value())
        if kind == "Genesis" and body["topic_id"] == now.input_id:
            return offset_of(message), body
    return None


def outputs_end(log: Log, names: TopicNames, partition: int) -> list[Caused]:
    """What the last alert, estimate, dead letter and window's result are of."""
    found = []
    for topic, record, framing, field in (
        (names.drift_alerts, "DriftAlert", Framing.JSON, "last_sequence"),
        (names.drift_estimates, "DriftEstimate", Framing.JSON, "sequence"),
        (names.dead_letters, "DeadLetter", Framing.SINGLE_OBJECT, "sequence"),
    ):
        message = log.last(topic, partition)
        if message is None:
            continue
        try:
            fields = decode(record, message.value() or b"", framing)
        except DecodeError:
            continue  # none of ours, so it says nothing about the ledger
        # An alert's last_sequence is the last event that was not GREEN; the one that closed it came after.
        last = fields.get("at_close") or {"sequence": fields[field]}
        # Of a worker's clock the alerts speak of heartbeats, which have an index alone.
        by: Literal["sequence", "index"] = "index" if is_of_worker(fields.get("alert_id", "")) else "sequence"
        found.append(Caused(f"{topic}@{offset_of(message)}", by, int(last["sequence"])))
    message = log.last(names.aggregates, partition)
    result = None if message is None else record_of(message)
    if result is not None:
        found.append(Caused(f"{names.aggregates}@{result.offset}", "index", result.at_index))
    return found


def check_outputs(names: TopicNames, partition: int, head: Head, caused: list[Caused]) -> None:
    """What entries cause stands in their transaction or a later one, so none is of a later entry than the last."""
    for where, by, later in caused:
        last = head.sequence if by == "sequence" else head.index
        if later > last:
            detail = f"{names.sequenced}[{partition}] ends at {by} {last}, but {where} is of {by} {later}"
            remedy = "Restore the end of the ledger topic from a copy"
            raise HaltError(partition, HaltCode.LEDGER_TAIL_LOST, detail, remedy)


def _genesis(log: Log, names: TopicNames, partition: int, cut: Cut | None) -> Mapping[str, Any]:
    """The GENESIS body of a ledger partition, or what a cut took over from it."""
    message = log.first(names.sequenced, partition)
    entry = decode_entry(partition, message.value() if message else None)
    kind, body = read_control(entry["value"])
    if cut is not None and 1 < entry["index"] <= cut.before_index:
        return cut.genesis
    if entry["index"] != 1 or kind != "Genesis":
        detail = f"{names.sequenced}[{partition}] begins at index {entry['index']}, not with GENESIS"
        if cut is not None:
            detail += f", and cuts took the entries before {cut.before_index} alone"
        remedy = "The start of the ledger was deleted: restore it, and set retention.ms=-1 (`driftledger topics check`)"
        raise HaltError(partition, HaltCode.LEDGER_BROKEN, detail, remedy)
    return body


def _compare(partition: int, genesis: Mapping[str, Any], now: Deployment) -> None:
    if genesis["topic_id"] != now.input_id:
        detail = f"input topic {genesis['topic']} was id {genesis['topic_id']} at genesis and is {now.input_id} now"
        remedy = "The topic was deleted and made again. Begin a new ledger under another name, or restore the old topic"
        raise HaltError(partition, HaltCode.TOPIC_RECREATED, detail, remedy)
    for what, then, here in (
        ("partitions", genesis["partitions"], now.partitions),
        ("lanes", genesis["lanes"], now.lanes),
    ):
        if then != here:
            raise HaltError(
                partition, HaltCode.TOPIC_CHANGED, f"{what} were {then} at genesis and are {here} now", _COUNT_REMEDY
            )


def _check_input(log: Log, names: TopicNames, partition: int, tail: Tail, base_offset: int) -> int:
    """The offset to go on from: after the last one sequenced, or where the log begins if only markers were between."""
    resume = max(tail.head.input_offset + 1, base_offset)
    bounds = log.bounds(names.input, partition)
    if bounds.end < resume:
        detail = f"{names.input}[{partition}] ends at {bounds.end}, but offset {resume - 1} is in the ledger"
        raise HaltError(partition, HaltCode.INPUT_TRUNCATED, detail, INPUT_TRUNCATED_REMEDY)
    if bounds.start > resume and _proved_end(log, names, partition, tail) < bounds.start:
        raise _input_cut(names, partition, bounds.start, resume)
    return max(resume, bounds.start)


def _check_last_record(log: Log, names: TopicNames, partition: int, tail: Tail) -> int:
    """The input still holds what was sequenced last, unless it has expired; returns its leader epoch, -1 for none."""
    if not tail.head.sequence:
        return -1
    entry = _entry_at(log, names, partition, tail, "sequence", tail.head.sequence)
    offset = tail.head.input_offset
    if log.bounds(names.input, partition).start <= offset:
        record = next(log.scan(names.input, partition, offset, offset + 1), None)
        found = None if record is None else (record.timestamp()[1], value_hash(record.value()))
        if found != (entry["authority_timestamp"], bytes(entry["value_hash"])):
            detail = f"{names.input}[{partition}]@{offset} is not the record of sequence {tail.head.sequence}"
            raise HaltError(partition, HaltCode.INPUT_TRUNCATED, detail, INPUT_TRUNCATED_REMEDY)
    return int(entry["input_leader_epoch"])


def _entry_at(log: Log, names: TopicNames, partition: int, tail: Tail, field: str, wanted: int) -> dict[str, Any]:
    """The first entry whose field is at least wanted; one there is."""
    offset = find_offset(log, names.sequenced, partition, tail, field, wanted)
    return decode_entry(partition, next(log.scan(names.sequenced, partition, offset, tail.offset + 1)).value())


def _input_cut(names: TopicNames, partition: int, start: int, resume: int) -> HaltError:
    detail = f"{names.input}[{partition}] begins at {start}, the ledger stands at {resume}: records are gone"
    remedy = "Retention passed the lane. Begin a new ledger, or restore the input; raise its retention"
    return HaltError(partition, HaltCode.INPUT_CUT, detail, remedy)


def _proved_end(log: Log, names: TopicNames, partition: int, tail: Tail) -> int:
    """Input offset up to which the last sequenced heartbeat proves that nothing readable was left, -1 without one."""
    control = tail.head.control_offset
    for _ in range(_HEARTBEAT_SEARCH_CONTROLS):
        entry = _entry_at(log, names, partition, tail, "control_offset", control)
        kind, body = read_control(entry["value"])
        if kind == "Heartbeat" and body["input_end_offset"]:  # under a lock it names none
            return int(body["input_end_offset"])
        if kind == "Genesis":
            break
        control = entry["control_offset"] - 1
    return -1


def _check_control(log: Log, names: TopicNames, partition: int, tail: Tail) -> None:
    bounds = log.bounds(names.control, partition)
    resume = tail.head.control_offset + 1
    if bounds.end < resume or bounds.start > resume:
        detail = f"{names.control}[{partition}] holds {bounds.start} to {bounds.end}, the ledger stands at {resume}"
        remedy = "Control records are gone: restore the control topic, or begin a new ledger"
        raise HaltError(partition, HaltCode.CONTROL_CUT, detail, remedy)
