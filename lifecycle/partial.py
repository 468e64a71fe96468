"""Aggregates of several answers as one, to the bit what one answer over all rows would say.

Problem: partitions may be held by several workers, and doubles that were rounded do not add up to the rounded sum. So
a partial answer carries each sum as the integer it is, in units of 2^-1074 (the least double): integers add exactly,
and are rounded once, at the end. For percentiles it carries the values of each group, or the bins of its sketch.

HAZARD of exact percentiles of more values than are kept the bins are not enough: a group with such in more than one
answer is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lifecycle.planner import Explain, Function
from lifecycle.spread import Spread, joined, percentile_of, relative_errors
from lifecycle.sum_kernel import BASE, GROUPS, TAKEN
from lifecycle.tally import DOUBT, Aggregates, Tally
from schemas.errors import BadInputError
from streams.windows import By

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lifecycle.planner import Aggregation

    #: Start and end of the window, of which near the ends of time one is cut to 64 bits, and name.
    Key = tuple[int, int, bytes]

#: The least double, as the exponent of two.
_UNIT: Final = 1 << 1074
_LIMB_BITS: Final = 32


class PartialTally(Tally):
    """A tally that also tells sums as integers. exact: in units of the least double, in the order of the result."""

    exact: list[int]

    def result(self, names: Sequence[bytes], explain: Explain) -> Aggregates:
        """As Tally's."""
        groups = self._end()
        found = int(groups.state[GROUPS])
        windows, keys, base = groups.window[:found].tolist(), groups.key[:found].tolist(), int(groups.state[BASE])
        ranks = [names[key] for key in keys] if self._aggregation.by is not By.ALL else [b""] * found
        limbs = groups.limbs[:found].tolist()
        order = sorted(range(found), key=lambda group: (windows[group], ranks[group]))
        self.exact = [
            sum(limb << (_LIMB_BITS * (base + place)) for place, limb in enumerate(limbs[group])) for group in order
        ] or [0]  # of nothing there may be an answer too
        spreads: list[Spread] = []
        if self._aggregation.percentiles:
            parts = self._spreads.parts(int(groups.state[TAKEN]), groups.values[:found])
            spreads = [parts[group] for group in order] or [joined([], exact=True)]
        return super().result(names, explain)._replace(spreads=spreads)


def rounded(exact: int) -> float:
    """The nearest double, infinite beyond the largest."""
    try:
        return exact / _UNIT
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")


def merge(
    aggregation: Aggregation, answers: Sequence[tuple[Aggregates, Sequence[int]]], explain: Explain
) -> Aggregates:
    """Answers to one question over different partitions, each with its sums as integers.

    Their functions are those that `needed` names. Raises BadInputError for exact percentiles that cannot be merged.
    """
    groups: dict[Key, dict[Any, Any]] = {}
    for answer, sums in answers:
        for place, exact in enumerate(sums[: answer.count.size]):
            _add(groups, _key(answer, place), _group(answer, place, exact), aggregation)
    keys = sorted(groups)
    merged = [groups[key] for key in keys]
    names = sorted({name for _, _, name in keys})
    ranks = {name: rank for rank, name in enumerate(names)}
    by_all, windowed = aggregation.by is By.ALL, aggregation.window is not None
    doubt = answers[0][0].doubt if answers else ()
    values = np.array([group["values"] for group in merged], np.int64)
    sums_of = [rounded(group["exact"]) if group["values"] else float("nan") for group in merged]
    columns = {
        Function.SUM: sums_of,
        Function.MIN: [group["min"] for group in merged],
        Function.MAX: [group["max"] for group in merged],
        Function.MEAN: [total / max(int(count), 1) for total, count in zip(sums_of, values.tolist(), strict=True)],
    }
    return Aggregates(
        aggregation.by,
        np.array([start for start, _, _ in keys], np.int64) if windowed else None,
        np.array([end for _, end, _ in keys], np.int64) if windowed else None,
        None if by_all else np.array([ranks[name] for _, _, name in keys], np.int32),
        () if by_all else tuple(names),
        np.array([group["count"] for group in merged], np.int64),
        values,
        {function: np.array(columns[function]) for function in Function if function in aggregation.functions},
        {p: np.array([_percentile(group, p) for group in merged]) for p in aggregation.percentiles},
        explain,
        {name: np.array([group[name] for group in merged], np.int64) for name in doubt},
        relative_errors(values, exact=aggregation.exact) if aggregation.percentiles else None,
    )


def needed(aggregation: Aggregation) -> frozenset[Function]:
    """The functions that an answer must have to be merged."""
    return aggregation.functions | {Function.MIN, Function.MAX}


def _key(answer: Aggregates, place: int) -> Key:
    if answer.window_start_us is None or answer.window_end_us is None:
        start, end = 0, 0
    else:
        start, end = int(answer.window_start_us[place]), int(answer.window_end_us[place])
    return start, end, b"" if answer.key is None else answer.names[answer.key[place]]


def _group(answer: Aggregates, place: int, exact: int) -> dict[Any, Any]:
    return {
        "count": int(answer.count[place]),
        "values": int(answer.values[place]),
        "exact": exact,
        "min": float(answer.functions[Function.MIN][place]),
        "max": float(answer.functions[Function.MAX][place]),
        **{name: int(column[place]) for name, column in answer.doubt.items()},
        "spread": answer.spreads[place] if answer.spreads else Spread(None),
        **{percentile: float(column[place]) for percentile, column in answer.percentiles.items()},
    }


def _percentile(group: dict[Any, Any], percentile: int) -> float:
    """As one answer told it; of values of several from how they are spread."""
    return float(group[percentile]) if percentile in group else percentile_of(group["spread"], percentile)


def _add(
    groups: dict[Key, dict[Any, Any]],
    key: Key,
    more: dict[Any, Any],
    aggregation: Aggregation,
) -> None:
    before = groups.setdefault(key, more)
    if before is more:
        return
    if aggregation.percentiles and before["values"] and more["values"]:
        if not (before["spread"].known and more["spread"].known):
            raise BadInputError(
                "exact percentiles of this many events that different workers hold are not answered. Ask for each "
                "partition by itself, by source, or for percentiles within their error"
            )
        before["spread"] = joined([before["spread"], more["spread"]], exact=aggregation.exact)
        for percentile in aggregation.percentiles:
            before.pop(percentile, None)
    elif not before["values"]:
        before.update({name: more[name] for name in ("spread", *aggregation.percentiles) if name in more})
    for name in ("count", "values", "exact", *(name for name in DOUBT if name in before)):
        before[name] += more[name]
    before["min"] = float(np.fmin(before["min"], more["min"]))
    before["max"] = float(np.fmax(before["max"], more["max"]))
