"""How fast jobs read and write files: so many bytes in a second, for all that is done at one pace.

Problem: a job beside lanes has the same disk, and the same processors, as they. What it does may take longer; what they
do may not. So its bytes are counted where files are read, and it waits when it is ahead of its rate.

    take(bytes)    the time at which they are paid for moves on by bytes / rate; who comes before it waits until then.
                   What was not used is kept for BURST_S and no longer

That is a token bucket, of which only the time is kept at which it is full. What is written is looked at where something
is read: jobs do both by turns, in pieces of a few megabytes.

GUARANTEE over any span of time no more than rate * (span + BURST_S) is begun, and one piece; all is counted once.
HAZARD what comes from Kafka, what a hot store writes, and what a job reads back of a file that it has just written, is
not counted.
For any thread.
"""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from lifecycle.file_tree import FileTree
from schemas.clock import source as time_source
from schemas.instants import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lifecycle.manifest import Tree
    from lifecycle.tiers import Tier

BURST_S: Final = 0.25
#: For who has no rate.
UNLIMITED: Final = 0
#: How often who waits looks whether it is to end.
_CHECK_NS: Final = NS_PER_S // 4


class Pace:
    """bytes_per_s: the rate, UNLIMITED for none. check: raises where who reads or writes is to end; also who waits."""

    def __init__(self, bytes_per_s: int = UNLIMITED, check: Callable[[], None] = lambda: None) -> None:
        self._rate, self._check = bytes_per_s, check
        self._clock = time_source()
        self._lock = threading.Lock()
        #: Until when, by the monotonic clock, what was taken is paid for.
        self._paid_ns = self._clock.monotonic_ns()

    def take(self, size_bytes: int) -> None:
        """Wait until so many bytes may be read or written. Raises what the check does."""
        self._check()
        if not self._rate or size_bytes <= 0:
            return
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            begins_ns = max(self._paid_ns, now_ns - int(BURST_S * NS_PER_S))
            self._paid_ns = begins_ns + size_bytes * NS_PER_S // self._rate
            wait_ns = self._paid_ns - now_ns
        while wait_ns > 0:
            piece_ns = min(wait_ns, _CHECK_NS)
            self._clock.sleep_s(piece_ns / NS_PER_S)
            wait_ns -= piece_ns
            self._check()


class PacedTree(FileTree):
    """Files that are read and written at a pace."""

    def __init__(self, files: FileTree, pace: Pace) -> None:
        super().__init__(files.root, files.owner)
        self._files, self._pace = files, pace
        #: Files that are written, and how many bytes of each are counted.
        self._counted: dict[Path, int] = {}

    def take(self, size_bytes: int) -> None:
        """Count what was read, and what files have grown by meanwhile."""
        self._pace.take(size_bytes + sum(self._growth(file) for file in tuple(self._counted)))

    def fresh(self, tier: Tier) -> Path:
        """Its bytes are counted as it grows."""
        file = self._files.fresh(tier)
        self._counted[file] = 0
        return file

    def publish(self, fresh: Path, path: str) -> None:
        """With what is not counted of it yet."""
        self.take(0)
        self._counted.pop(fresh, None)
        self._files.publish(fresh, path)

    def replace(self, fresh: Path, path: str) -> None:
        """As publish."""
        self.take(0)
        self._counted.pop(fresh, None)
        self._files.replace(fresh, path)

    def remove(self, path: str) -> bool:
        """Nothing is counted."""
        return self._files.remove(path)

    def orphans(self, tree: Tree) -> list[str]:
        """Likewise."""
        return self._files.orphans(tree)

    def open_checked(self, path: str) -> BinaryIO:
        """What is read of it is counted."""
        return cast("BinaryIO", _Counted(self._files.open_checked(path), self))

    def _growth(self, file: Path) -> int:
        try:
            size_bytes = file.stat().st_size
        except OSError:  # it is gone, with the job that wrote it
            return 0
        before, self._counted[file] = self._counted.get(file, 0), size_bytes
        return max(0, size_bytes - before)


class _Counted(io.RawIOBase):
    """A file whose bytes are counted as they are read."""

    def __init__(self, file: BinaryIO, tree: PacedTree) -> None:
        super().__init__()
        self._file, self._tree = file, tree

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()

    def read(self, size: int | None = -1) -> bytes:
        content = self._file.read(-1 if size is None else size)
        self._tree.take(len(content))
        return content

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()
