"""The windows in force in each partition, told from the broker alone, and a suspended one begun anew.

Problem: a definition is in force from its own entry on, for as long as the ledger lives, while the control topic keeps
30 days; and that one was suspended is a conclusion of derive, which no DEFINITION entry holds. So what is in force is
told as a lane does it when it opens: from the newest snapshot of derive that fits the ledger, then from the entries
after it. A suspension after the snapshot is a record of the aggregates topic, found by when it was appended.

    snapshot of derive         entries after it                  the ledger's tail
    |-- definitions, ----------|-- DEFINITION: in force, --------|
        suspended or not           works again
                               records of aggregates since: suspended

GUARANTEE exact up to the tail that was read first: nothing is taken from settings, nor from a worker.
HAZARD without a snapshot that fits, the ledger is read from its first entry, and the aggregates as far as they are
kept, so a suspension of more than 30 days ago is not seen then. Lanes write a snapshot every few seconds.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schemas.errors import BadInputError
from streams.aggregates import Suspension, record_of
from streams.control import control_values, encode_control, read_control
from streams.derive import Derive
from streams.drift_log import Written
from streams.gate import Gate
from streams.ledger_reader import decode_entry
from streams.progress import produce_durably
from streams.queries import CLOCK_ALLOWANCE_MS
from streams.snapshots import read_snapshots
from streams.windows import DEFINITIONS_MAX, Frame, entry_name, percentile_text, read_entry, window_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streams.ledger_reader import Tail
    from streams.queries import Ledger
    from streams.snapshots import Packed
    from streams.windows import WindowDefinition

_US_PER_MS: Final = 1_000
_DERIVE: Final = Derive()


class WindowInForce(NamedTuple):
    """A definition in force in a partition. version: index of its DEFINITION entry.

    suspended: why it does nothing, None while it works.
    """

    partition: int
    definition: WindowDefinition
    version: int
    suspended: str | None

    def row(self) -> dict[str, Any]:
        """For a listing."""
        window = self.definition
        return {
            "window": window.name,
            "partition": self.partition,
            "version": self.version,
            "kind": window.kind,
            "size_ms": window.size_us // _US_PER_MS,
            "slide_ms": window.slide_us // _US_PER_MS or None,
            "frame": window.frame,
            "by": window.by,
            "late": window.late,
            "red": window.red if window.frame is Frame.CORRECTED else None,
            "unknown": window.unknown if window.frame is Frame.CORRECTED else None,
            "functions": ",".join(window.functions),
            "percentiles": ",".join(map(percentile_text, window.percentiles)) or None,
            "suspended": self.suspended,
        }


def read_windows(ledger: Ledger, partition: int | None = None) -> list[WindowInForce]:
    """The definitions in force, by name and partition. Raises BadInputError for a partition that is not there."""
    snapshots: dict[int, list[Packed]] = {}
    found: list[WindowInForce] = []
    for p in ledger.chosen(partition):
        lane = ledger.lane_of(p)
        if lane not in snapshots:
            snapshots[lane] = read_snapshots(ledger.log, ledger.names.snapshots, lane, (_DERIVE.name,), partition)
        found += _in_force(ledger, p, snapshots[lane])
    return sorted(found, key=lambda window: (window.definition.name, window.partition))


def resume(ledger: Ledger, name: str, *, actor: str, reason: str) -> dict[int, Written]:
    """Put a window in force again where it is suspended, as it was defined; by partition where that was written.

    It begins anew there, without the windows that it had, once a lane takes the record; where it works nothing is
    written, for what it has open would be lost. Raises BadInputError where it is in force or suspended nowhere,
    HaltError or LockedError where one of those partitions is halted or locked; then nothing is written.
    """
    windows = [window for window in read_windows(ledger) if window.definition.name == name]
    if not windows:
        raise BadInputError(f"no window {name!r} is in force, so there is none to resume. See `driftledger windows`")
    suspended = [window for window in windows if window.suspended is not None]
    if not suspended:
        raise BadInputError(f"window {name} is suspended in no partition: nothing was written")
    with closing(Gate(ledger.bootstrap, ledger.names.progress, ledger.partitions, ledger.lanes)) as gate:
        for window in suspended:
            gate.check(window.partition)
    written = {}
    for window in suspended:
        body = {"name": entry_name(name), "body": window.definition.canonical()}
        record = encode_control("Definition", body, actor, reason)
        topic = ledger.names.control
        [(offset, at_ms)] = produce_durably(ledger.bootstrap, topic, window.partition, [(None, record)])
        written[window.partition] = Written(topic, window.partition, offset, at_ms)
    return written


def _in_force(ledger: Ledger, partition: int, snapshots: Iterable[Packed]) -> Iterable[WindowInForce]:
    tail = ledger.tail(partition)
    if tail is None:
        return []
    after, since_ms, windows = _at_snapshot(ledger, partition, tail, snapshots)
    for batch in ledger.batches(partition, tail, ledger.offset_of(partition, tail, after + 1, "index")):
        for row, value in control_values(batch.entries):
            _take(windows, partition, int(batch.entries.index[row]), value)
    for name, version, reason in _suspensions(ledger, partition, since_ms):
        if name in windows and windows[name].version == version:
            windows[name] = windows[name]._replace(suspended=reason)
    return windows.values()


def _at_snapshot(
    ledger: Ledger, partition: int, tail: Tail, snapshots: Iterable[Packed]
) -> tuple[int, int, dict[str, WindowInForce]]:
    """Index and authority time of the entry after which the newest fitting snapshot stands, and what is in force there.

    The beginning, where none fits: one is passed over that is not of this ledger, or cannot be loaded.
    """
    for snapshot in snapshots:
        if (snapshot.fold, snapshot.version, snapshot.partition) != (_DERIVE.name, _DERIVE.version, partition):
            continue
        if snapshot.index > tail.head.index:
            continue
        offset = ledger.offset_of(partition, tail, snapshot.index, "index")
        message = next(ledger.log.scan(ledger.names.sequenced, partition, offset, tail.offset + 1))
        entry = decode_entry(partition, message.value())
        if (entry["index"], bytes(entry["chain_hash"])) != (snapshot.index, snapshot.chain_hash):
            continue
        state = snapshot.loaded(partial(_DERIVE.load, partition))
        if state is None:
            continue
        windows = {
            name: WindowInForce(partition, run.definition, run.version, run.suspended)
            for name, run in state.running.items()
        }
        return snapshot.index, entry["authority_timestamp"], windows
    return 0, 0, {}


def _take(windows: dict[str, WindowInForce], partition: int, index: int, value: bytes) -> None:
    """What a control entry says of windows; what cannot be read, or is one too many, changes nothing, as in derive."""
    kind, body = read_control(value)
    name = window_name(body["name"]) if kind == "Definition" else None
    if name is None:
        return
    try:
        definition = read_entry(body["name"], body["body"])
    except BadInputError:
        return
    if definition is None:
        windows.pop(name, None)
    elif name in windows or len(windows) < DEFINITIONS_MAX:
        windows[name] = WindowInForce(partition, definition, index, None)


def _suspensions(ledger: Ledger, partition: int, since_ms: int) -> Iterable[tuple[str, int, str]]:
    """Name, version and reason of each suspension that may have been recorded after that authority time."""
    topic = ledger.names.aggregates
    begin = ledger.log.offsets_since(topic, [partition], max(0, since_ms - CLOCK_ALLOWANCE_MS))[partition]
    if begin < 0:
        return
    for message in ledger.log.scan(topic, partition, begin, ledger.log.bounds(topic, partition).stable_end):
        if not (message.key() or b"").endswith(b"/suspended"):  # most are results, and need not be parsed
            continue
        record = record_of(message)
        if isinstance(record, Suspension):
            yield record.definition, record.version, record.reason
