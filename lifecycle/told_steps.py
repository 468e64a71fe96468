"""Steps as a record tells them: what a run that was asked for did, or would do, to be listed by who asked.

GUARANTEE what is told takes STEPS_BYTES_MAX bytes at most; how many more steps there are is said.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lifecycle.json_members import count_in
from lifecycle.steps import Job, Step
from lifecycle.tiers import Grain, Tier

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Of a record of a run, which has 65,536 for all.
STEPS_BYTES_MAX: Final = 40_000


class Told(NamedTuple):
    """Steps as a record of a run has them. left_out: how many more there are."""

    steps: tuple[Step, ...] = ()
    left_out: int = 0


def told_of(steps: Sequence[Step]) -> Told:
    """As many of the first as a record has room for."""
    room = STEPS_BYTES_MAX
    for count, step in enumerate(steps):
        room -= len(json.dumps(step, separators=(",", ":"))) + 1
        if room < 0:
            return Told(tuple(steps[:count]), len(steps) - count)
    return Told(tuple(steps))


def told_in(document: Any) -> Told:
    """From what JSON has of it. Raises ValueError, TypeError or KeyError for what is none."""
    return Told(tuple(_step(each) for each in document["steps"]), count_in(document["left_out"]))


def _step(values: Any) -> Step:
    job, partition, period, tier, grain, paths, first, last, rows, size_bytes, reads, why = values
    return Step(
        Job(job),
        count_in(partition),
        str(period),
        Tier(tier),
        None if grain is None else Grain(grain),
        tuple(str(path) for path in paths),
        count_in(first),
        count_in(last),
        count_in(rows),
        count_in(size_bytes),
        float(reads),
        str(why),
    )
