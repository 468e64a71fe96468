"""What is measured: a store that answers; how it is asked, checked and timed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

from benchmarks.ledger_check import CheckFailedError
from benchmarks.store.oracle import Oracle
from benchmarks.store.questions import Groups, Kind, difference, drawn
from schemas.clock import SystemTime

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.store.questions import Answer, Asked, Tolerance
    from benchmarks.store.rows import Rows

#: What slow questions are asked, at least; all rounds of one kind take about so long, at most, checked and timed.
ROUNDS_MIN: Final = 5
_BUDGET_S: Final = 120
_BLOCK: Final = 512
_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000
_time = SystemTime()


class Subject(Protocol):
    """A store that holds all rows. tolerance: what its answers may be off."""

    name: str
    tolerance: Tolerance

    def ask(self, asked: Asked) -> Any:
        """The whole answer, at hand in this process: what is timed."""
        ...

    def told(self, asked: Asked, said: Any) -> Answer:
        """As it is compared: not timed."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Timing(NamedTuple):
    """Of one kind of question."""

    p50_ms: float
    p95_ms: float
    rounds: int


class Questions(NamedTuple):
    """All kinds, each with other borders for each round, and the right answers of those without rows."""

    asked: dict[Kind, list[Asked]]
    right: dict[Asked, Groups]


def questions(rows: Rows, rounds: int) -> Questions:
    """So many of each kind."""
    asked = {kind: drawn(kind, rows.count, rounds) for kind in Kind}
    aggregates = sorted({each for some in asked.values() for each in some if not each.rows}, key=str)
    return Questions(asked, dict(zip(aggregates, Oracle(rows).aggregates(aggregates), strict=True)))


def measure(subject: Subject, rows: Rows, wanted: Questions) -> dict[Kind, Timing]:
    """Ask every question once and compare its answer, then all of them again and time them.

    So all is warm that asking warms. Raises CheckFailedError for an answer that is not right.
    """
    return {kind: _measure(subject, rows, some, wanted.right) for kind, some in wanted.asked.items()}


def _measure(subject: Subject, rows: Rows, asked: list[Asked], right: Mapping[Asked, Groups]) -> Timing:
    oracle = Oracle(rows)
    some = asked[:ROUNDS_MIN]
    usual_ns = sorted(_check(subject, oracle, each, right) for each in some)[len(some) // 2]
    fitting = max(int(_BUDGET_S * _NS_PER_S / 2 / max(usual_ns, 1)), ROUNDS_MIN)
    for each in asked[ROUNDS_MIN:fitting]:
        _check(subject, oracle, each, right)
    took_ms = [_timed(subject, each)[1] / _NS_PER_MS for each in asked[:fitting]]
    p50_ms, p95_ms = np.percentile(took_ms, [50, 95]).tolist()
    return Timing(p50_ms, p95_ms, len(took_ms))


def _check(subject: Subject, oracle: Oracle, asked: Asked, right: Mapping[Asked, Groups]) -> int:
    """Compare one answer; returns the nanoseconds that it took."""
    said, took_ns = _timed(subject, asked)
    expected = oracle.rows_out(asked) if asked.rows else right[asked]
    wrong = difference(expected, subject.told(asked, said), subject.tolerance)
    if wrong:
        raise CheckFailedError(f"{subject.name} answers {asked} wrongly: {wrong}. No figure counts")
    return took_ns


def _timed(subject: Subject, asked: Asked) -> tuple[Any, int]:
    began_ns = _time.monotonic_ns()
    said = subject.ask(asked)
    return said, _time.monotonic_ns() - began_ns


class Stopwatch:
    """Adds up what some stretches of time took."""

    def __init__(self) -> None:
        self._began_ns = self._took_ns = 0

    def __enter__(self) -> None:
        self._began_ns = _time.monotonic_ns()

    def __exit__(self, *_: object) -> None:
        self._took_ns += _time.monotonic_ns() - self._began_ns

    @property
    def seconds(self) -> float:
        """Of all of them."""
        return self._took_ns / _NS_PER_S


def folder_bytes(folder: Path) -> int:
    """What all files below a folder take of the disk: some are made larger than what is in them."""
    found = (path.stat() for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(min(each.st_blocks * _BLOCK, each.st_size) for each in found)
