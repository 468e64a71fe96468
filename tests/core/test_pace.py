"""The pace of jobs: no more bytes in a second than were set, of what is read and of what is written."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from lifecycle.file_tree import FileTree
from lifecycle.pace import BURST_S, Pace, PacedTree
from lifecycle.tiers import Tier
from schemas.clock import SimulatedTime, using

if TYPE_CHECKING:
    from pathlib import Path

RATE = 1_000_000
PATH = "historical/daily/2026-01-30/data/p00000-000000000000000001-000000000000000009-5eb6c3d98a4f1e20.parquet"


@pytest.mark.parametrize("seed", range(5))
def test_no_more_is_taken_than_the_rate_allows(seed: int) -> None:
    """Over every span from one piece to another, whatever the pieces and the pauses; and not less."""
    rng = random.Random(seed)
    with using(SimulatedTime()) as clock:
        pace = Pace(RATE)
        begun: list[tuple[int, int]] = []
        waited = total = 0
        for _ in range(300):
            if rng.random() < 0.2:
                clock.sleep_s(rng.random() * 2)
            size, before = rng.randrange(1, 200_000), clock.monotonic_ns()
            pace.take(size)
            waited += clock.monotonic_ns() - before
            total += size
            begun.append((clock.monotonic_ns(), size))
    for first in range(0, len(begun), 7):
        for last in range(first, len(begun), 5):
            span_s = (begun[last][0] - begun[first][0]) / 1e9
            assert sum(size for _, size in begun[first + 1 : last + 1]) <= RATE * (span_s + BURST_S) + 1
    assert waited / 1e9 <= total / RATE


def test_without_a_rate_nobody_waits() -> None:
    """Nor for nothing."""
    with using(SimulatedTime()) as clock:
        Pace().take(10**15)
        Pace(RATE).take(0)
        assert clock.monotonic_ns() == 0


class _EndedError(Exception):
    """Who reads is to end."""


def test_who_waits_ends_when_it_is_to() -> None:
    """Soon, however much is to be paid for; and who has no rate before it reads any more."""
    with using(SimulatedTime()) as clock:

        def check() -> None:
            if clock.monotonic_ns() >= 10**9:
                raise _EndedError

        with pytest.raises(_EndedError):
            Pace(RATE, check).take(1_000 * RATE)
        assert clock.monotonic_ns() < 2 * 10**9
        with pytest.raises(_EndedError):
            Pace(check=check).take(1)
        with pytest.raises(_EndedError):
            Pace(RATE, check).take(0)


def test_what_is_read_and_written_is_counted(tmp_path: Path) -> None:
    """Each byte once: what is written where something is read, and the rest with the name."""
    with using(SimulatedTime()) as clock:
        tree = PacedTree(FileTree(tmp_path / "root", "test.manifest"), Pace(RATE))

        def lasted_s() -> float:
            return clock.monotonic_ns() / 1e9

        fresh = tree.fresh(Tier.HISTORICAL)
        fresh.write_bytes(bytes(RATE))
        tree.take(RATE)
        assert lasted_s() == pytest.approx(2)
        with fresh.open("ab") as file:
            file.write(bytes(RATE))
        tree.publish(fresh, PATH)
        assert lasted_s() == pytest.approx(3)
        with tree.open_checked(PATH) as read:
            assert len(read.read(RATE)) == RATE
            assert lasted_s() == pytest.approx(4)
            assert read.tell() == RATE
            assert len(read.read()) == RATE
        assert read.closed
        assert lasted_s() == pytest.approx(5)
        gone = tree.fresh(Tier.HISTORICAL)
        gone.unlink()
        tree.take(0)
        assert lasted_s() == pytest.approx(5)
