"""The drift log's entries: a pure function of the ledger's, and the same however it is read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import DecodeError, Framing, decode
from schemas.columns import slice_rows
from schemas.instants import INT64_MAX, INT64_MIN
from streams.drift_entries import DriftEntry, DriftLogger, Reading
from streams.severity import Severity
from tests.core.judge_oracle import START_MS, Ledger, Row, control, event, lock

START_US = START_MS * 1_000


def entries_of(rows: list[Row], most: int = 100, source: str | None = None) -> list[DriftEntry]:
    """All in one batch."""
    ledger = Ledger(rows)  # owns the memory that its entries point into
    return DriftLogger(4, Framing.SINGLE_OBJECT, source).newest(ledger.entries, most)


def test_an_event_is_a_reading_of_its_local_time() -> None:
    """Delta, severity, and the chain hash of its ledger entry."""
    ledger = Ledger([Row(event("pump", "e", START_US + 1_500_500))])
    ledger.entries.chain_hash[0] = 7
    (entry,) = DriftLogger(4, Framing.SINGLE_OBJECT, None).newest(ledger.entries, 1)
    assert entry == DriftEntry(
        4, 1, 1, Reading.DATA, START_MS, START_US + 1_500_500, 1_501, Severity.YELLOW, "pump", bytes([7]) * 32
    )
    assert entry.id == "4:1"
    assert entry.row()["anchor_timestamp"].endswith("500Z")


@pytest.mark.parametrize("anchored_us", [None, 0, INT64_MIN, INT64_MAX])
def test_an_anchor_is_green_and_has_no_delta(anchored_us: int | None) -> None:
    """Anchored when the broker took it, unless it says otherwise."""
    (entry,) = entries_of([control("Anchor", source="a", anchor_timestamp=anchored_us)])
    assert (entry.reading, entry.severity, entry.drift_delta_ms) == (Reading.ANCHOR, Severity.GREEN, None)
    assert entry.anchor_timestamp_us == (START_US if anchored_us is None else anchored_us)
    assert entry.row()["drift_delta_ms"] is None


@pytest.mark.parametrize(
    ("off_us", "delta_ms", "severity"),
    [
        (999_499, 999, Severity.GREEN),
        (999_500, 1_000, Severity.YELLOW),
        (-4_999_500, -5_000, Severity.RED),
        (-(10**15), -(10**12), Severity.RED),
    ],
)
def test_a_verification_is_a_reading_of_the_client(off_us: int, delta_ms: int, severity: Severity) -> None:
    """Rounded half away from zero, of any size."""
    (entry,) = entries_of([control("Verify", source="v", client_timestamp=START_US + off_us)])
    assert (entry.reading, entry.drift_delta_ms, entry.severity) == (Reading.VERIFY, delta_ms, severity)


@pytest.mark.parametrize("engaged", [True, False])
def test_a_lock_and_its_release_are_verifications_of_who_did_it(*, engaged: bool) -> None:
    """With delta and severity; the source is whose clock it was, not what is locked."""
    (entry,) = entries_of([lock("pump-7", engaged=engaged, off_us=-5_000_000)], source="CLI")
    assert (entry.reading, entry.drift_delta_ms, entry.severity) == (
        Reading.LOCK if engaged else Reading.RELEASE,
        -5_000,
        Severity.RED,
    )
    assert entries_of([lock("pump-7")], source="pump-7") == []


def test_what_asserts_no_instant_has_no_entry() -> None:
    """Values that cannot be read, and the other control records."""
    rows = [
        Row(b"?"),
        Row(None),
        control("Heartbeat", predecessor_appended_ms=None, input_end_offset=3, worker_us=5),
        control("FoldVersion", fold="judge", version=1),
    ]
    assert entries_of(rows) == []


def twin(rows: list[Row], source: str | None) -> list[tuple[int, str]]:
    """Index and source of every drift entry, plainly."""
    found = []
    for index, row in enumerate(rows, start=1):
        try:
            if row.kind == 0:
                name = decode("Event", row.value or b"")["source"]
            else:
                kind, body = decode("Control", row.value or b"")["body"]
                if kind not in ("Anchor", "Verify", "Lock"):
                    continue
                name = body["source"]
        except DecodeError:
            continue
        if source in (None, name):
            found.append((index, name))
    return found


NAMES = st.sampled_from(["a", "ab", "é", "x" * 200, "x" * 199 + "y"])
ROWS = st.lists(
    st.one_of(
        st.builds(lambda name, off: Row(event(name, "e", START_US + off)), NAMES, st.integers(-(10**7), 10**7)),
        st.builds(lambda name: control("Anchor", source=name, anchor_timestamp=None), NAMES),
        st.builds(lambda name: control("Verify", source=name, client_timestamp=5), NAMES),
        st.builds(lambda name, on: lock(name, engaged=on), NAMES, st.booleans()),
        st.just(Row(b"?")),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=60)
@given(rows=ROWS, source=st.one_of(st.none(), NAMES), most=st.integers(1, 30), data=st.data())
def test_the_newest_of_all_batches_are_the_newest_of_the_ledger(
    rows: list[Row], source: str | None, most: int, data: Any
) -> None:
    """Wherever it is cut; the plain twin says which."""
    ledger, logger = Ledger(rows), DriftLogger(0, Framing.SINGLE_OBJECT, source)
    found: list[DriftEntry] = []
    start = 0
    while start < len(rows):
        stop = data.draw(st.integers(start + 1, len(rows)))
        found = (found + logger.newest(slice_rows(ledger.entries, start, stop), most))[-most:]
        start = stop
    assert [(entry.index, entry.source) for entry in found] == twin(rows, source)[-most:]
