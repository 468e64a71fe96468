"""The numbers of a transaction on their way to Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.canonical import ValueState
from streams.judge import Judge
from streams.lane import Committed
from streams.metrics import REGISTRY, observe
from tests.core.judge_oracle import Ledger, Row, event

if TYPE_CHECKING:
    from streams.judge import Outputs


def _observe(outputs: Outputs) -> dict[str, float]:
    """What one transaction with these outputs adds to the dead letters, by fault."""
    before = _dead_letters()
    observe(0, Committed(len(outputs.events.fault), outputs.counts.events, 1_000_000, [(0, outputs)], 0, []))
    return {fault: more for fault, number in _dead_letters().items() if (more := number - before.get(fault, 0))}


def _dead_letters() -> dict[str, float]:
    return {
        sample.labels["fault"]: sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "driftledger_dead_letters_total"
    }


def test_an_erased_value_is_no_dead_letter() -> None:
    """It was read once: judge writes no letter for it, and none is counted."""
    rows = [Row(event("s", "e", 0), state=ValueState.ERASED), Row(b"no event")]
    judge = Judge()
    outputs = judge.step(judge.new_state(0), Ledger(rows).entries)
    assert _observe(outputs) == {"UNKNOWN_FRAMING": 1}
