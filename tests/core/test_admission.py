"""What a lane compares before it opens: here, the ends of the outputs with the end of the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest

from schemas.codec import Framing, encode
from schemas.errors import HaltCode, HaltError
from schemas.topics import topic_names
from streams.admission import check_outputs, deployment, outputs_end
from streams.log import TopicFacts
from streams.sequence import Head

if TYPE_CHECKING:
    from streams.log import Log

NAMES = topic_names("t", "events")


@dataclass
class _Message:
    content: bytes

    def value(self) -> bytes:
        return self.content

    def offset(self) -> int:
        return 7

    def partition(self) -> int:
        return 0

    def topic(self) -> str:
        return NAMES.aggregates

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_000


class _Lasts:
    """The last records of topics."""

    def __init__(self, lasts: dict[str, bytes]) -> None:
        self.lasts = lasts

    def last(self, topic: str, partition: int) -> _Message | None:
        assert partition == 0
        return _Message(self.lasts[topic]) if topic in self.lasts else None


def _reading(sequence: int) -> dict[str, Any]:
    return {
        "sequence": sequence,
        "authority_timestamp": 1_000,
        "local_timestamp": 1_000_000,
        "delta_ms": 0,
        "severity": "GREEN",
        "offset_us": None,
        "bound_us": None,
        "value_ms": 0,
    }


def _alert(last: int, closed: int | None) -> bytes:
    record = {
        "alert_id": "0:3:clock",
        "revision": 2,
        "state": "CHANGED" if closed is None else "CLOSED",
        "partition": 0,
        "source": "a",
        "subject": "SOURCE",
        "cause": "UNKNOWN",
        "severity": "RED" if closed is None else "GREEN",
        "previous_severity": "RED",
        "first_sequence": 3,
        "last_sequence": last,
        "events": 1,
        "skew_ppb": None,
        "at_open": _reading(3),
        "worst": _reading(3),
        "at_close": None if closed is None else _reading(closed),
        "text": "",
    }
    return encode("DriftAlert", record, Framing.JSON)


def _estimate(sequence: int) -> bytes:
    record = {
        "partition": 0,
        "source": "a",
        "sequence": sequence,
        "authority_timestamp": 1_000,
        "why": "KNOWN",
        "method": "ONE_WAY",
        "offset_us": 0,
        "bound_us": 50_000,
        "skew_ppb": 0,
        "skew_error_ppb": 500_000,
        "samples": 3,
        "span_ms": 5_000,
        "severity": "GREEN",
        "coherent_s": 1,
        "disturbances": 0,
        "step_sequence": None,
        "step_us": None,
    }
    return encode("DriftEstimate", record, Framing.JSON)


SUSPENDED = b'{"definition": "w", "version": 2, "partition": 0, "at_index": 40, "suspended": "too many"}'


@pytest.mark.parametrize(
    ("lasts", "by", "number"),
    [
        ({NAMES.drift_alerts: _alert(9, None)}, "sequence", 9),
        ({NAMES.drift_alerts: _alert(9, 12)}, "sequence", 12),  # closed by an event after the last that was not GREEN
        ({NAMES.drift_alerts: _alert(9, None).replace(b"3:clock", b"3:worker")}, "index", 9),  # of heartbeats
        ({NAMES.drift_estimates: _estimate(9)}, "sequence", 9),
        ({NAMES.aggregates: SUSPENDED}, "index", 40),
    ],
)
def test_an_output_past_the_end_of_the_ledger_is_told(lasts: dict[str, bytes], by: str, number: int) -> None:
    """It was committed with its entry, so the ledger's tail is lost."""
    caused = outputs_end(cast("Log", _Lasts(lasts)), NAMES, 0)
    assert [(one.by, one.number) for one in caused] == [(by, number)]
    check_outputs(NAMES, 0, Head(index=number, sequence=number), caused)
    with pytest.raises(HaltError, match=f"ends at {by} {number - 1}, but .*@7 is of {by} {number}") as halt:
        check_outputs(NAMES, 0, Head(index=number - 1, sequence=number - 1), caused)
    assert halt.value.code is HaltCode.LEDGER_TAIL_LOST


def test_what_is_no_record_of_ours_says_nothing() -> None:
    """Nor do topics without any."""
    noise = {NAMES.drift_alerts: b"{", NAMES.drift_estimates: b"[]", NAMES.dead_letters: b"x", NAMES.aggregates: b"[]"}
    assert outputs_end(cast("Log", _Lasts(noise)), NAMES, 0) == outputs_end(cast("Log", _Lasts({})), NAMES, 0) == []


class _Topics:
    """A cluster whose snapshots topic has a partition more than there are lanes."""

    def topic(self, name: str) -> TopicFacts:
        return TopicFacts("an-id", 3 if name == NAMES.snapshots else 2)


def test_nobody_is_told_to_delete_the_snapshots_of_a_ledger_that_was_cut() -> None:
    """Judge's state at the cut is there alone."""
    with pytest.raises(HaltError) as halt:
        deployment(cast("Log", _Topics()), NAMES, 0)
    assert halt.value.code is HaltCode.TOPIC_CHANGED
    assert "unless the ledger was cut: then restore it from a copy" in str(halt.value)
