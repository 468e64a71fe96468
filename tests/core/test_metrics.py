"""The numbers of a transaction on their way to Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from schemas.canonical import ValueState
from streams.derived import Derived, WindowCounts
from streams.fold import Messages
from streams.folds import Stepped
from streams.judge import Judge
from streams.lane import Committed
from streams.metrics import REGISTRY, observe
from tests.core.judge_oracle import Ledger, Row, event

if TYPE_CHECKING:
    from streams.judge import Outputs


def _observe(outputs: Outputs) -> dict[str, float]:
    """What one transaction with these outputs adds to the dead letters, by fault."""
    before = _dead_letters()
    rows, events = len(outputs.events.fault), outputs.counts.events
    observe(0, [Committed(rows, events, 1_000_000, [Stepped(outputs, None).counted()])])
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


def _of_windows() -> dict[str, float]:
    """Values of the metrics of windows, by name and window."""
    return {
        f"{sample.name.removeprefix('driftledger_')} {sample.labels.get('window', '')}".strip(): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if "window" in metric.name or sample.labels.get("window")
        if sample.name.endswith("_total")
    }


def test_what_windows_did_is_counted_by_definition() -> None:
    """Results, late and far events, and what does not work; a definition that did nothing shows nothing."""
    none = np.zeros(0, np.int64)
    counts = {
        "metrics_a": WindowCounts(9, 2, 0, 0, 5),
        "metrics_b": WindowCounts(0, 0, 3, 4, 0),
        "metrics_c": WindowCounts(7, 0, 0, 0, 0),
    }
    derived = Derived(Messages(none, none, none, none, none, []), [], counts, ["metrics_b"], 2)
    before = _of_windows()
    observe(0, 2 * [Committed(1, 1, 1_000_000, [Stepped(None, derived).counted()])])
    assert {name: value - before.get(name, 0) for name, value in _of_windows().items()} == {
        "window_results_total metrics_a": 10,
        "late_events_total metrics_a": 4,
        "ahead_events_total metrics_b": 6,
        "doubtful_events_total metrics_b": 8,
        "suspended_windows_total metrics_b": 2,
        "refused_windows_total": 4,
    }
