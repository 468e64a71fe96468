"""Data directories for the workers of one machine: each has one of its own, and finds it again.

A slot is a folder with a file that its worker holds locked: the system lets go of it when the worker ends, in any way.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lifecycle.hot_database import HotStoreUnavailableError, told_as_refusal

if TYPE_CHECKING:
    from pathlib import Path

#: How many workers one machine may hold; each takes the first free slot.
SLOTS_MAX: Final = 64

_LOCK: Final = "lock"


@dataclass(frozen=True, slots=True)
class Slot:
    """A data directory that is this worker's alone, as long as the file is open."""

    number: int
    folder: Path
    handle: int

    def release(self) -> None:
        """Let another worker have it."""
        os.close(self.handle)


def claim_slot(data_dir: Path) -> Slot:
    """The first slot below data_dir that no living worker holds: a worker that returns finds its own again.

    Raises HotStoreUnavailableError where all SLOTS_MAX are held, or the system refuses.
    """
    for number in range(SLOTS_MAX):
        folder = data_dir / "hot" / str(number)
        with told_as_refusal(folder):
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(handle)
                if not isinstance(error, BlockingIOError):
                    raise
            else:
                return Slot(number, folder, handle)
    raise HotStoreUnavailableError(f"all {SLOTS_MAX} slots in {data_dir / 'hot'} are held by workers: end one of them")
