"""Results that are more than a buffer holds."""

from __future__ import annotations

import numpy as np

from streams.derive_kernel import N_RESULTS, NUMBERS, RESULTS_MAX
from streams.quantiles import SKETCH_SLOTS
from streams.results import FLOAT_COLUMNS, INT_COLUMNS, START_US, Results
from streams.sources import no_names
from streams.window_results import Scratch, emit_changed
from streams.window_room import with_room
from streams.window_run import plan_of
from streams.window_table import CHANGED, EXACT_VALUES, PANE_CLOSED, STATE, open_window, window_hash
from streams.windows import By, WindowDefinition

STARTS = (0, 10, 20, 30)


def test_early_results_go_on_behind_those_that_were_taken() -> None:
    """Each window that changed is told once, in order; those that were passed are not looked at again."""
    each = RESULTS_MAX - 1
    windows = with_room(len(STARTS) * each, len(STARTS), 0, 0)
    rows = [
        [open_window(windows, slot, start, window_hash(slot, start), slot) for slot in range(each)] for start in STARTS
    ]
    windows.rows[: len(STARTS) * each, STATE] = CHANGED
    windows.panes[1, PANE_CLOSED] = 1
    plan = plan_of(WindowDefinition("w", 1_000_000, by=By.ALL, percentiles=(), early_us=1_000))
    numbers = np.zeros(NUMBERS, np.int64)
    results = Results(np.empty((RESULTS_MAX, INT_COLUMNS), np.int64), np.empty((RESULTS_MAX, FLOAT_COLUMNS)))
    scratch = Scratch(np.empty(EXACT_VALUES), *(np.empty(SKETCH_SLOTS, np.int64) for _ in range(2)))
    told: list[int] = []

    def tell() -> bool:
        done = emit_changed(windows, plan, no_names().hot, 0, numbers, results, scratch, 1)
        told.extend(results.ints[: numbers[N_RESULTS], START_US].tolist())
        numbers[N_RESULTS] = 0
        return done

    assert not tell()
    windows.rows[rows[0][0], STATE] |= CHANGED
    while not tell():
        pass
    assert told == [start for start in (STARTS[0], *STARTS[2:]) for _ in range(each)]
    assert tell()
    assert told[3 * each :] == [STARTS[0]]
