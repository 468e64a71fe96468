"""How the hours of a worker's partitions are used: when each was read, and when it came or left.

Problem: what is read is to stay at hand, so reads must be counted where questions are answered, at the cost of nothing,
and outlive the worker. So an hour has one number (`ageing`), however often it is read; a question counts once for each
hour of which it read rows. What is answered from statistics reads none, wherever they lie.

GUARANTEE a question that comes before any hour of its partition is known is counted once one is.
GUARANTEE memory: a line for each hour that was read or moved; those that neither is of weight any more are forgotten.
Of questions that wait for their hours WAITING_MAX chunks: what is more is not counted.
HAZARD what was counted since the last `save` is lost with the worker, and a file that cannot be read is begun anew: it
decides what lies where, never what is answered.
For any thread.
"""

from __future__ import annotations

import bisect
import json
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from lifecycle.ageing import COLD, after_read, entropy
from schemas.instants import US_PER_MS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from lifecycle.steps import HotHour

WAITING_MAX: Final = 50_000
#: An hour whose reads weigh less than this part of a bit is as one that was never read.
_LEAST_BITS: Final = 2.0**-10
_logger = structlog.get_logger()


class Used(NamedTuple):
    """Of an hour. heat: see `ageing`; moved_us: when it last came to the hot tier or left it, 0 for never."""

    heat: float = COLD
    moved_us: int = 0


class _Read(NamedTuple):
    """A question that was answered then."""

    first_sequences: tuple[int, ...]
    now_us: int
    half_life_us: int


class Usage:
    """Kept in a file, from `keep_in` on where none is given here. half_life_us: of reads."""

    def __init__(self, file: Path | None = None) -> None:
        self._file: Path | None = None
        self._lock = threading.Lock()
        #: By partition and the ms at which the hour ends.
        self._used: dict[int, dict[int, Used]] = {}
        #: By partition: first sequences of its hours, and when they end.
        self._hours: dict[int, tuple[list[int], list[int]]] = {}
        #: By partition: what was read of it before any hour was known.
        self._waiting: dict[int, list[_Read]] = {}
        self._room = WAITING_MAX
        if file is not None:
            self.keep_in(file)

    def keep_in(self, file: Path) -> None:
        """Know what a file has, and save there. Before the first hours are known; of a second file nothing is taken."""
        with self._lock:
            if self._file is None:
                self._file, self._used = file, _read(file)

    def of(self, partition: int) -> Mapping[int, Used]:
        """By the ms at which an hour ends."""
        with self._lock:
            return dict(self._used.get(partition, {}))

    def know(self, partition: int, hours: Sequence[HotHour]) -> None:
        """Which hours there are: reads are counted for these."""
        known = [hour.first_sequence for hour in hours], [hour.end_ms for hour in hours]
        with self._lock:
            self._hours[partition] = known
            if hours:
                for read in self._waiting.pop(partition, []):
                    self._room += len(read.first_sequences)
                    self._count(partition, read)

    def note(self, partition: int, first_sequences: Iterable[int], now_us: int, half_life_us: int) -> None:
        """A question that read rows of the chunks that begin there."""
        read = _Read(tuple(first_sequences), now_us, half_life_us)
        with self._lock:
            if any(self._hours.get(partition, ())):
                self._count(partition, read)
            elif 0 < len(read.first_sequences) <= self._room:
                self._room -= len(read.first_sequences)
                self._waiting.setdefault(partition, []).append(read)

    def moved(self, partition: int, end_ms: int, now_us: int) -> None:
        """An hour came, or left."""
        with self._lock:
            used = self._used.setdefault(partition, {})
            used[end_ms] = used.get(end_ms, Used())._replace(moved_us=now_us)

    def save(self, now_us: int, half_life_us: int, stay_us: int) -> None:
        """Write what is known, without what has no weight any more. For one thread. Raises OSError."""
        with self._lock:
            for partition, used in self._used.items():
                self._used[partition] = {
                    end_ms: each
                    for end_ms, each in used.items()
                    if now_us - each.moved_us < stay_us or _weighs(end_ms, each.heat, now_us, half_life_us)
                }
            document = {partition: dict(used) for partition, used in self._used.items() if used}
            file = self._file
        if file is not None:
            fresh = file.with_suffix(".new")
            fresh.write_text(json.dumps(document))
            fresh.replace(file)

    def _count(self, partition: int, read: _Read) -> None:
        """Once for each hour."""
        starts, ends = self._hours[partition]
        places = {bisect.bisect_right(starts, sequence) - 1 for sequence in read.first_sequences}
        used = self._used.setdefault(partition, {})
        for place in places - {-1}:
            before = used.get(ends[place], Used())
            heat = after_read(before.heat, ends[place] * US_PER_MS, read.now_us, read.half_life_us)
            used[ends[place]] = before._replace(heat=heat)


def _weighs(end_ms: int, heat: float, now_us: int, half_life_us: int) -> bool:
    written_us = end_ms * US_PER_MS
    age = entropy(written_us, COLD, now_us, half_life_us)
    return age - entropy(written_us, heat, now_us, half_life_us) >= _LEAST_BITS


def _read(file: Path) -> dict[int, dict[int, Used]]:
    try:
        document = json.loads(file.read_text())
        return {
            int(partition): {int(end_ms): Used(float(heat), int(moved_us)) for end_ms, (heat, moved_us) in used.items()}
            for partition, used in document.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        _logger.warning("usage_begun_anew", file=str(file), error=str(error))
        return {}
