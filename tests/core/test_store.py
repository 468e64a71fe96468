"""The hot store's fold against a plain twin: rows as dictionaries, statistics as fractions, chunks cut by the rules."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from lifecycle import store_kernel
from lifecycle.chunk_codec import decode_applied, decode_header, decode_readings, decode_rows
from lifecycle.chunk_facts import header_of
from lifecycle.chunks import (
    NO_LOCAL,
    NOTHING,
    ROWS,
    TEXT_BYTES,
    Applied,
    Column,
    Header,
    ReadingCode,
    Readings,
    Rows,
)
from lifecycle.store import Sealed, Store, StoreState, readings_of, rows_of
from lifecycle.store_kernel import MS_PER_HOUR
from schemas.canonical import EntryKind, ValueState
from schemas.codec import DecodeError, Framing, decode, encode
from schemas.columns import Fault, slice_rows
from schemas.instants import INT64_MAX
from schemas.memory import JIT
from streams.definitions import JudgeSettings
from streams.fold import FoldError
from streams.judge import Judge, Outputs
from streams.judge_kernel import Flag
from tests.core.event_generator import event_at
from tests.core.hot_rows import corrected_us
from tests.core.interpreted import interpreted
from tests.core.judge_histories import history
from tests.core.judge_oracle import START_MS, Ledger, Row, control, definition, event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.catalog import Unsealed
    from schemas.columns import Entries

PARTITION = 3


class Chunk(NamedTuple):
    """A chunk as it is read back."""

    header: Header
    rows: Rows
    readings: Readings | None


class Run(NamedTuple):
    """All that the fold showed over a ledger."""

    sealed: list[Sealed]
    unsealed: Chunk | None


def long_ledger(seed: int, length: int, jumps: float = 0.02) -> Ledger:
    """A history of the judge with readings of the drift log among it, chain hashes, and a clock that jumps."""
    rng = random.Random(seed)
    rows: list[Row] = []
    later_ms = 0
    for row in history(seed, length, changes=0.003):
        if rng.random() < jumps:
            later_ms += rng.choice((MS_PER_HOUR, 1000, 600_000, 5 * MS_PER_HOUR, -2 * MS_PER_HOUR))
        at_ms = row.authority_ms + later_ms
        rows.append(replace(row, authority_ms=at_ms))
        if rng.random() < 0.01:
            stated = rng.choice((None, at_ms * 1000 + 7))
            rows.append(control("Anchor", at_ms, source=f"anchor-{rng.randrange(3)}", anchor_timestamp=stated))
        if rng.random() < 0.01:
            rows.append(control("Verify", at_ms, source="a clock", client_timestamp=at_ms * 1000 - 5))
    return hashed(Ledger(rows), seed)


def hashed(ledger: Ledger, seed: int) -> Ledger:
    """With chain hashes, which are as good as random."""
    hashes = np.random.default_rng(seed).integers(0, 256, ledger.entries.chain_hash.shape)
    ledger.entries.chain_hash[:] = hashes
    return ledger


def heavy_ledger(seed: int, length: int) -> Ledger:
    """Short texts, and megabytes wherever else an entry may have them: what counts where a chunk ends, and what not."""
    rng = random.Random(seed)
    settings = JudgeSettings(framing=Framing.JSON)
    rows = [definition(settings)]
    for number in range(length):
        readable = event("a", f"e{number}", START_MS * 1000, 1.0, Framing.JSON)
        large = bytes(rng.choice((10, 1_000_000, 3_000_000)))
        rows.append(
            rng.choice(
                (
                    Row(b"?" + large),
                    Row(readable + large.replace(b"\0", b" ")),
                    Row(readable, key=large),
                    Row(large, state=rng.choice((ValueState.OMITTED, ValueState.ERASED))),
                    Row(rng.choice((None, b"", readable))),
                )
            )
        )
    ledger = hashed(Ledger(rows), seed)
    labelled = np.array([row.kind is EntryKind.DATA and rng.random() < 0.2 for row in rows])
    ledger.entries.headers_length[labelled] = 1_000_000  # nothing that is tested with it reads them
    return ledger


def every(size: int) -> Iterator[int]:
    """Batches of one size."""
    return itertools.repeat(size)


def ragged(seed: int) -> Iterator[int]:
    """Batches of 0 to 300 entries."""
    rng = random.Random(seed)
    while True:
        yield rng.choice((0, 1, 2, rng.randrange(300)))


def bits(value: object) -> object:
    """Of arrays in any nesting, every bit: for a comparison."""
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, value.tobytes())
    return tuple(map(bits, value)) if isinstance(value, tuple) else value


def run(ledger: Ledger, sizes: Iterator[int], resume: Applied | None = None, fold: Store | None = None) -> Run:
    """Judge and store a ledger; what is before resume is judged, and passed over by the store."""
    judge, fold = Judge(), fold or Store()
    judged, state = judge.new_state(PARTITION), fold.new_state(PARTITION, resume)
    sealed: list[Sealed] = []
    for entries in ledger.batches(sizes):
        outputs = judge.step(judged, entries)
        sealed += fold.step(state, entries, outputs)
        del outputs  # texts must have been copied out of it
    fold.publish(state)
    return Run(sealed, unsealed_of(state))


def unsealed_of(state: StoreState) -> Chunk | None:
    """What was published after the last chunk, as a chunk that ends with its last row or reading."""
    view = state.visible
    if view.rows == 0 and view.readings_count == 0:
        return None
    rows, readings = rows_of(view), readings_of(view)
    last_index = max([*rows.index[-1:].tolist(), *readings.index[-1:].tolist()])
    sources, kinds = (names.strings() for names in view.names())
    return Chunk(
        header_of(state.partition, view.before, rows, view.readings_count, last_index, sources, kinds), rows, readings
    )


def read(sealed: Sealed) -> Chunk:
    """Decoded."""
    where = (sealed.partition, sealed.first_sequence)
    header = decode_header(*where, sealed.header)
    readings = None
    if header.readings:
        readings = decode_readings(*where, header.readings, sealed.sections[Column.READINGS])
    return Chunk(header, decode_rows(*where, header.rows, sealed.sections), readings)


def chunks_of(found: Run) -> list[Chunk]:
    """All of them, the unsealed one last."""
    return [*map(read, found.sealed), *([found.unsealed] if found.unsealed else [])]


# ------------------------------------------------------------------------------------------------------------ the twin


def plain_row(entries: Entries, outputs: Outputs, row: int) -> dict[str, Any]:
    """What is to be stored of a DATA entry."""
    readable = outputs.verdicts.fault[row] == Fault.NONE
    event: dict[str, Any] = event_at(row, outputs.events) if readable else {}
    value, hlc = event.get("value"), event.get("hlc")
    return {
        "sequence": int(entries.sequence[row]),
        "index": int(entries.index[row]),
        "input_offset": int(entries.input_offset[row]),
        "authority_ms": int(entries.authority_ms[row]),
        "local_us": event.get("local_timestamp", 0),
        "value": "nan" if value is None or math.isnan(value) else value,
        "has_value": int(value is not None),
        "severity": int(outputs.verdicts.severity[row]),
        "flags": int(outputs.verdicts.flags[row]),
        "fault": int(outputs.verdicts.fault[row]),
        "source": event["source"].encode() if readable else None,
        "kind": event["kind"].encode() if readable else None,
        "event_id": event["event_id"].encode() if readable else b"",
        "payload": event.get("payload", b""),
        "chain_hash": entries.chain_hash[row].tobytes(),
        "hlc": hlc or 0,
        "has_hlc": int(hlc is not None),
        "cause": int(outputs.verdicts.cause[row]),
        "offset_us": int(outputs.verdicts.offset_us[row]),
        "bound_us": int(outputs.verdicts.bound_us[row]),
    }


def stored_rows(rows: Rows, sources: tuple[bytes, ...], kinds: tuple[bytes, ...]) -> list[dict[str, Any]]:
    """Rows as the twin has them."""
    found = []
    for at in range(rows.sequence.size):
        row: dict[str, Any] = {
            name: column[at].item()
            for name, column in rows._asdict().items()
            if name not in ("event_id", "payload", "chain_hash")
        }
        row |= {"event_id": rows.event_id.at(at), "payload": rows.payload.at(at)}
        row |= {"chain_hash": rows.chain_hash[at].tobytes()}
        if math.isnan(row["value"]):
            row["value"] = "nan"
        for name, names in (("source", sources), ("kind", kinds)):
            row[name] = None if row[name] < 0 else names[row[name]]
        found.append(row)
    return found


class PlainChunk(NamedTuple):
    """Rows and readings, and what was before."""

    rows: list[dict[str, Any]]
    readings: list[dict[str, Any]]
    order_ms: int
    first_index: int


def sent_bytes(row: Row, headers_length: int) -> int:
    """What is there of an entry as it was sent: value, key, headers."""
    value = row.value if row.state is ValueState.PRESENT else None
    return len(value or b"") + len(row.key or b"") + headers_length


def plain_chunks(ledger: Ledger) -> list[PlainChunk]:
    """Cut by the rules; the last one is not sealed unless it is full."""
    judge = Judge()
    outputs = judge.step(judge.new_state(PARTITION), ledger.entries)
    chunks = [PlainChunk([], [], NOTHING.order_ms, 1)]
    order_ms, sequence = NOTHING.order_ms, 0
    texts = sent = 0
    for at, row in enumerate(ledger.rows):
        if row.kind is EntryKind.CONTROL:
            reading = plain_reading(ledger, at, sequence)
            chunks[-1].readings.extend([reading] if reading else [])
            continue
        stored = plain_row(ledger.entries, outputs, at)
        sequence += 1
        after_ms = max(order_ms, stored["authority_ms"])
        held, another_hour = chunks[-1].rows, after_ms // MS_PER_HOUR != order_ms // MS_PER_HOUR
        of_texts = len(stored["event_id"]) + len(stored["payload"])
        of_sent = sent_bytes(row, int(ledger.entries.headers_length[at]))
        if held and (another_hour or texts + of_texts > TEXT_BYTES or sent + of_sent > TEXT_BYTES):
            chunks.append(PlainChunk([], [], order_ms, at + 1))
        texts, sent = (texts + of_texts, sent + of_sent) if chunks[-1].rows else (of_texts, of_sent)
        order_ms = after_ms
        chunks[-1].rows.append(stored)
        if sequence % ROWS == 0:
            chunks.append(PlainChunk([], [], order_ms, at + 2))
    return chunks if chunks[-1].rows or chunks[-1].readings else chunks[:-1]


def plain_reading(ledger: Ledger, at: int, sequence: int) -> dict[str, Any] | None:
    """What is to be stored of an ANCHOR, VERIFY or LOCK."""
    try:
        kind, body = decode("Control", ledger.rows[at].value or b"")["body"]
    except DecodeError:
        return None
    if kind not in ("Anchor", "Verify", "Lock"):
        return None
    kind = kind if body.get("engaged", True) else "Release"
    asserted = body.get("client_timestamp", body.get("anchor_timestamp"))
    return {
        "index": at + 1,
        "sequence": sequence,
        "authority_ms": ledger.rows[at].authority_ms,
        "asserted_us": ledger.rows[at].authority_ms * 1000 if asserted is None else asserted,
        "reading": ReadingCode[kind.upper()],
        "source": body["source"].encode(),
        "chain_hash": ledger.entries.chain_hash[at].tobytes(),
    }


def plain_stats(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], list[Any]]:
    """Count, values, least, greatest and true sum by source, kind and minutes."""
    stats: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        if row["fault"] or row["flags"] & (Flag.DUPLICATE | Flag.CONFLICT):
            continue
        key = (row["source"], row["kind"], row["local_us"] // 60_000_000, row["authority_ms"] // 60_000)
        line = stats.setdefault(key, [0, 0, None, None, Fraction(0)])
        line[0] += 1
        value = row["value"]
        if row["has_value"] and value != "nan" and math.isfinite(value):
            line[1] += 1
            line[2] = value if line[2] is None else min(line[2], value)
            line[3] = value if line[3] is None else max(line[3], value)
            line[4] += Fraction(value)
    return stats


def stored_stats(header: Header) -> dict[tuple[Any, ...], list[Any]]:
    """As the twin has them."""
    stats, found = header.stats, {}
    codes = np.stack([stats.source, stats.kind, stats.local_minute, stats.authority_minute], axis=1).tolist()
    assert codes == sorted(codes)
    for line, (source, kind, *minutes) in enumerate(codes):
        assert stats.exact[line] == 1
        values = int(stats.values[line])
        assert math.isnan(stats.minimum[line]) == math.isnan(stats.maximum[line]) == (values == 0)
        found[header.sources[source], header.kinds[kind], *minutes] = [
            int(stats.count[line]),
            values,
            float(stats.minimum[line]) if values else None,
            float(stats.maximum[line]) if values else None,
            sum(map(Fraction, stats.sum[line].tolist())),
        ]
    return found


def check_chunk(chunk: Chunk, plain: PlainChunk) -> None:
    """The chunk says what the twin's does."""
    header, rows = chunk.header, plain.rows
    assert chunk.rows.sequence.size == header.rows
    assert stored_rows(chunk.rows, header.sources, header.kinds) == rows
    readable = [row["local_us"] for row in rows if not row["fault"]]
    assert header.partition == PARTITION
    assert (header.first_sequence, header.first_index) == (rows[0]["sequence"], plain.first_index)
    assert (header.last_sequence, header.rows) == (rows[-1]["sequence"], len(rows))
    assert (header.order_ms, header.readings) == (plain.order_ms, len(plain.readings))
    assert header.authority_ms_min == min(row["authority_ms"] for row in rows)
    assert header.authority_ms_max == max(row["authority_ms"] for row in rows)
    assert (header.local_us_min, header.local_us_max) == ((min(readable), max(readable)) if readable else NO_LOCAL)
    dated = [at_us for row in range(len(rows)) if (at_us := corrected_us(chunk.rows, row)) is not None]
    assert (header.corrected_us_min, header.corrected_us_max) == ((min(dated), max(dated)) if dated else NO_LOCAL)
    assert header.warned == sum(row["flags"] & Flag.WARNED != 0 for row in rows)
    stats = plain_stats(rows)
    assert stored_stats(header) == stats
    assert header.counted == sum(line[0] for line in stats.values())
    for name, names in (("source", header.sources), ("kind", header.kinds)):
        assert list(names) == list(dict.fromkeys(row[name] for row in rows if row[name] is not None))
    if plain.readings:
        assert chunk.readings is not None
        columns = chunk.readings._asdict()
        for at, reading in enumerate(plain.readings):
            stored = {
                name: column.at(at)
                if name == "source"
                else column[at].tobytes()
                if name == "chain_hash"
                else int(column[at])
                for name, column in columns.items()
            }
            assert stored == reading


def check_against_twin(ledger: Ledger, sizes: Iterator[int]) -> Run:
    """Chunks, their borders, and what is left."""
    found = run(ledger, sizes)
    chunks, plain = chunks_of(found), plain_chunks(ledger)
    assert len(chunks) == len(plain)
    for chunk, twin in zip(chunks, plain, strict=True):
        check_chunk(chunk, twin)
    before = NOTHING
    for number, sealed in enumerate(found.sealed, 1):
        assert (sealed.first_index, sealed.first_sequence) == (before.index + 1, before.sequence + 1)
        assert sealed.last_index == plain[number].first_index - 1 if number < len(plain) else True
        applied = decode_applied(PARTITION, sealed.applied)
        order_ms = max([before.order_ms, *(row["authority_ms"] for row in plain[number - 1].rows)])
        assert applied == Applied(sealed.last_index, sealed.last_sequence, number, order_ms)
        assert read(sealed).header[1:6] == sealed[1:6]
        assert sealed.number == number
        before = applied
    return found


# ----------------------------------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize(("seed", "jumps"), [(1, 0.003), (2, 0.0)])
def test_chunks_hold_what_the_twin_says(seed: int, jumps: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row, verdict, reading and statistic; borders at 8,192 and at hours, whatever the clocks do."""
    rows, length = (ROWS, 9_500) if JIT else (1_024, 1_300)
    monkeypatch.setattr(store_kernel, "ROWS", rows)
    monkeypatch.setitem(globals(), "ROWS", rows)  # the twin's
    found = check_against_twin(long_ledger(seed, length, jumps), ragged(seed))
    assert found.unsealed is not None
    assert found.unsealed.rows.cause.any()
    assert found.unsealed.rows.offset_us.any()
    assert found.sealed
    assert (jumps == 0) == (len(found.sealed) == 1)


def check_splits(fold: Store, seed: int) -> None:
    """The same bytes in batches of any size."""
    ledger = long_ledger(seed, 1_500)
    expected = run(ledger, every(100_000), fold=fold)
    assert len(expected.sealed) > 3
    for sizes in (every(1), every(7), every(500), ragged(seed)):
        found = run(ledger, sizes, fold=fold)
        assert found.sealed == expected.sealed
        assert bits(found.unsealed) == bits(expected.unsealed)


@pytest.mark.parametrize("seed", [3, 4])
def test_batches_make_no_difference(seed: int) -> None:
    """Batches of 1, 7, 500 and of any size."""
    check_splits(Store(), seed)


class _SealsLate(Store):
    """Ends a chunk with the batch in which it should have ended."""

    def step(self, state: StoreState, entries: Entries, outputs: Outputs) -> list[Sealed]:
        """As the store, but a chunk more."""
        sealed = super().step(state, entries, outputs)
        if sealed and state.filling.numbers[0]:
            self._seal(state, int(entries.index[-1]), sealed)
        return sealed


def test_a_store_that_depends_on_batches_is_caught() -> None:
    """The check above can fail."""
    with pytest.raises(AssertionError):
        check_splits(_SealsLate(), 3)


def test_a_store_goes_on_from_what_is_stored() -> None:
    """From any chunk's applied record: the chunks after it are the same bytes."""
    ledger = long_ledger(5, 1_500 if JIT else 500)
    whole = run(ledger, every(100))
    for at in (0, 1, len(whole.sealed) - 1):
        resumed = run(ledger, ragged(at), decode_applied(PARTITION, whole.sealed[at].applied))
        assert resumed.sealed == whole.sealed[at + 1 :]
        assert bits(resumed.unsealed) == bits(whole.unsealed)


def test_entries_that_do_not_go_on_are_refused() -> None:
    """A gap before the first entry, between batches, and in the sequence."""
    ledger = Ledger([Row(event("a", f"e{i}", START_MS * 1000)) for i in range(6)])
    store, judge = Store(), Judge()
    outputs = judge.step(judge.new_state(PARTITION), ledger.entries)
    with pytest.raises(FoldError, match="index 5 after 3"):
        store.step(store.new_state(PARTITION, Applied(3, 3, 1, 0)), slice_rows(ledger.entries, 4, 6), outputs)
    state = store.new_state(PARTITION)
    assert store.step(state, ledger.entries, outputs) == []
    with pytest.raises(FoldError, match="index 1 after 6"):
        store.step(state, ledger.entries, outputs)
    with pytest.raises(FoldError, match="sequence 4 after 2"):
        store.step(store.new_state(PARTITION, Applied(3, 2, 1, 0)), ledger.entries, outputs)


def test_what_is_stored_already_is_passed_over() -> None:
    """Also when a batch, or the beginning of it, lies before it."""
    ledger = Ledger([Row(event("a", f"e{i}", START_MS * 1000)) for i in range(6)])
    resumed = run(ledger, every(2), Applied(3, 3, 1, 0))
    assert resumed.unsealed is not None
    assert resumed.unsealed.rows.sequence.tolist() == [4, 5, 6]
    assert run(ledger, every(2), Applied(6, 6, 1, 0)).unsealed is None


def test_texts_and_names_of_any_size_are_kept() -> None:
    """Arrays grow: long names, long ids, payloads of a MiB; a chunk ends before its texts pass the limit."""
    rng = random.Random(7)

    def large(number: int) -> bytes:
        fields = {
            "event_id": "i" * rng.choice((0, 1000)) + str(number),
            "source": f"{number % 90:0250d}",
            "kind": "k" * 200,
        }
        payload = rng.randbytes(rng.choice((0, 1_000_000, 3_000_000)))
        return encode("Event", {**fields, "local_timestamp": START_MS * 1000, "value": 1.0, "payload": payload})

    rows = [Row(large(number)) for number in range(40)]
    huge = {
        "event_id": "h",
        "source": "s",
        "kind": "k",
        "local_timestamp": 0,
        "value": None,
        "payload": bytes(TEXT_BYTES + 1),
    }
    rows[5:5] = [Row(encode("Event", huge)), Row(None), Row(encode("Event", huge))]
    found = check_against_twin(hashed(Ledger(rows), 7), every(9))
    assert len(found.sealed) > 3


@pytest.mark.parametrize("seed", [11, 12])
def test_a_chunk_ends_before_more_than_its_bytes_of_what_was_sent(seed: int) -> None:
    """Of values, readable or not, keys and headers, in batches of any size; values that are not there count nothing."""
    ledger = heavy_ledger(seed, 60)
    found = check_against_twin(ledger, every(7))
    assert len(found.sealed) > 2
    faults = {*np.concatenate([chunk.rows.fault for chunk in chunks_of(found)]).tolist()}
    assert faults == {Fault.NONE, Fault.BAD_JSON, Fault.OMITTED, Fault.ERASED, Fault.NULL_VALUE, Fault.EMPTY}
    for sizes in (every(1), every(1000), ragged(seed)):
        again = run(ledger, sizes)
        assert again.sealed == found.sealed
        assert bits(again.unsealed) == bits(found.unsealed)


def test_a_chunk_may_have_all_of_its_bytes_and_one_row_more() -> None:
    """The byte that is too much begins the next; a value of more than that alone is a chunk."""
    half, huge = b"?" * (TEXT_BYTES // 2), b"?" * (TEXT_BYTES + 1)
    found = check_against_twin(
        hashed(Ledger([Row(value) for value in (half, half, b"", None, b"?", huge, b"", b"?")]), 13), every(3)
    )
    assert [sealed.rows for sealed in found.sealed] == [4, 1, 1]
    assert found.unsealed is not None
    assert found.unsealed.header.rows == 2


def shown(unsealed: Unsealed) -> object:
    """All that a query sees of it."""
    return bits((*unsealed[:3], unsealed.readings(), unsealed.before_index))


def test_what_is_published_stays_as_it_was() -> None:
    """A query may go on with what it took while rows are added, arrays grow and chunks end."""
    ledger = long_ledger(8, 700)
    judge, store = Judge(), Store()
    judged, state = judge.new_state(PARTITION), store.new_state(PARTITION)
    taken: list[tuple[Unsealed, object]] = []
    assert store.unsealed(state) is None
    for entries in ledger.batches(every(20)):
        store.step(state, entries, judge.step(judged, entries))
        if taken:
            now = store.unsealed(state)
            assert now is not None
            assert shown(now) == taken[-1][1]  # nothing is visible before it is published
        store.publish(state)
        unsealed = store.unsealed(state)
        assert unsealed is not None
        taken.append((unsealed, shown(unsealed)))
        assert all(index <= entries.index[-1] for index in unsealed.rows.index[-1:])
    assert all(shown(unsealed) == then for unsealed, then in taken)


def test_a_sum_that_three_doubles_cannot_hold_is_marked() -> None:
    """Then its line says so and no number."""
    values = (1e200, 1.0, 1e-200, 1e-300)
    rows = [Row(event("a", f"e{i}", 0, value)) for i, value in enumerate(values)]
    rows += [Row(event("b", f"f{i}", 0, value)) for i, value in enumerate((1.5, -0.0, math.nan, math.inf))]
    unsealed = run(Ledger(rows), every(3)).unsealed
    assert unsealed is not None
    stats = unsealed.header.stats
    assert stats.exact.tolist() == [0, 1]
    assert stats.sum.tolist() == [[0.0, 0.0, 0.0], [1.5, 0.0, 0.0]]
    assert (stats.count.tolist(), stats.values.tolist()) == ([4, 4], [4, 2])
    assert [math.copysign(1, number) for number in stats.minimum.tolist()] == [1, 1]


def test_instants_at_the_ends_of_time_are_stored() -> None:
    """An anchor that names no instant has that of its append, as far as microseconds reach."""
    rows = [
        control("Anchor", 2**62, source="s", anchor_timestamp=None),
        Row(event("a", "1", -(2**63)), -(2**63)),
        Row(event("a", "2", 2**63 - 1), 2**63 - 1),
    ]
    found = run(Ledger(rows), every(1))
    assert [sealed.last_sequence for sealed in found.sealed] == [1]
    first = read(found.sealed[0])
    assert first.readings is not None
    assert first.readings.asserted_us.tolist() == [INT64_MAX]
    assert first.rows.local_us.tolist() == [-(2**63)]


def test_statistics_are_sorted_however_far_apart_their_minutes_are() -> None:
    """Also where the four numbers of a key do not fit one."""
    rng = random.Random(9)
    rows = [
        Row(
            event(f"s{rng.randrange(30)}", f"e{i}", rng.choice((-(2**63), 2**63 - 1, 0, 60_000_000 * i)), 1.0), START_MS
        )
        for i in range(300)
    ]
    check_against_twin(Ledger(rows), every(50))


def test_only_readings_are_no_chunk_but_can_be_asked_for() -> None:
    """Until a row comes."""
    found = run(Ledger([control("Verify", source="s", client_timestamp=5)]), every(1))
    assert found.unsealed is not None
    assert (found.sealed, found.unsealed.header.rows, found.unsealed.header.readings) == ([], 0, 1)
    assert found.unsealed.readings is not None
    assert found.unsealed.readings.source.strings() == (b"s",)


def fingerprint(seed: int, length: int) -> str:
    """A digest of all bytes; the subprocess below prints it."""
    found = run(long_ledger(seed, length), ragged(seed))
    return hashlib.sha256(repr([found.sealed, bits(found.unsealed)]).encode()).hexdigest()


def test_interpreted_kernels_do_the_same() -> None:
    """With NUMBA_DISABLE_JIT=1 the same sources run as plain Python."""
    assert interpreted("tests.core.test_store", "fingerprint(21, 700)") == fingerprint(21, 700).encode()
