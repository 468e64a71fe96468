"""Which worker to ask for a partition, where several say that they hold it.

Problem: a worker that wakes from a long pause says, until it is fenced, that it is level: with the head where it fell
asleep. Its answer would lack what its successor has committed since.

GUARANTEE of several the one is taken whose lane has gone furthest in the ledger, for committed entries are never fewer
later; of equals the one whose store has.
HAZARD before the successor has opened its lane it knows no head, and the former one is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    #: A partition as /hot tells it: partition, standing, reached, head, error.
    Told = dict[str, Any]


def furthest(told: Iterable[tuple[str, list[Told]]]) -> dict[int, tuple[Told, str]]:
    """How each partition stands, and the address of the worker that says so. told: by each worker's address."""
    held: dict[int, tuple[Told, str]] = {}
    for address, places in told:
        for place in places:
            before = held.get(place["partition"])
            if before is None or _reach(before[0]) < _reach(place):
                held[place["partition"]] = place, address
    return held


def _reach(place: Told) -> tuple[int, int]:
    return place["head"], place["reached"]
