"""Each worker of a machine has a data directory of its own."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from lifecycle.hot_database import HotStoreUnavailableError
from lifecycle.slots import SLOTS_MAX, claim_slot

if TYPE_CHECKING:
    from pathlib import Path


def test_slots_are_held_by_one_worker_each(tmp_path: Path) -> None:
    """The first free one, and again once it is released."""
    slots = [claim_slot(tmp_path) for _ in range(3)]
    assert [slot.number for slot in slots] == [0, 1, 2]
    assert len({slot.folder for slot in slots}) == 3
    slots[1].release()
    again = claim_slot(tmp_path)
    assert (again.number, again.folder) == (1, tmp_path / "hot" / "1")
    rest = [claim_slot(tmp_path) for _ in range(SLOTS_MAX - 3)]
    with pytest.raises(HotStoreUnavailableError, match="all 64 slots"):
        claim_slot(tmp_path)
    for slot in (slots[0], again, slots[2], *rest):
        slot.release()


def test_a_file_system_without_locks_is_told_as_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the worker goes on without a hot tier, and its file does not stay open."""
    handles = []

    def refuse(handle: int, _: int) -> None:
        handles.append(handle)
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(HotStoreUnavailableError, match="No locks available"):
        claim_slot(tmp_path)
    [handle] = handles
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)
