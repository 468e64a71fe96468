"""An object of a store as a file that is read: each read is a request, so neighbouring ones are made one.

Problem: a request takes tens of milliseconds, whatever its size, and a disk's reader asks for eight bytes, then for
what these say. So more is fetched than was asked for, where that will be asked for next; a column of a row group, which
is read at once, is fetched as it is.

    up to WHOLE_BYTES        all of it with the first read: most indices
    at its end               TAIL_BYTES: the footer of an archive
    behind the last read     AHEAD_BYTES: a whole file is read from one end to the other
    else                     what was asked for

GUARANTEE memory: one window, of WHOLE_BYTES or AHEAD_BYTES at most, and what a read gives.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

WHOLE_BYTES: Final = 2 * 1024 * 1024
AHEAD_BYTES: Final = 2 * 1024 * 1024
TAIL_BYTES: Final = 64 * 1024


class ObjectFile(io.RawIOBase):
    """fetch: so many bytes from a place on, or fewer where it ends. size: of the object."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int, close: Callable[[], None]) -> None:
        super().__init__()
        self._fetch, self._size, self._let_go = fetch, size, close
        self._at = 0
        #: Where the last read ended.
        self._behind = -1
        #: What was fetched beyond what was asked for, and where it begins.
        self._window, self._window_at = b"", 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Where the next read begins."""
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """So many bytes, or fewer where it ends; -1: to its end. Raises what fetch raises."""
        start = self._at
        stop = self._size if size is None or size < 0 else min(start + size, self._size)
        if start >= stop:
            return b""
        if not self._window_at <= start <= stop <= self._window_at + len(self._window):
            begin, end = self._extent(start, stop)
            self._window, self._window_at = self._fetch(begin, end - begin), begin
        content = self._window[start - self._window_at : stop - self._window_at]
        if len(content) == len(self._window):  # nobody asks for the same again
            self._window = b""
        self._at = self._behind = start + len(content)
        return content

    def close(self) -> None:
        """Let go of it."""
        if not self.closed:
            self._window = b""
            self._let_go()
        super().close()

    def _extent(self, start: int, stop: int) -> tuple[int, int]:
        """What is fetched for bytes from start to stop."""
        if self._size <= WHOLE_BYTES:
            return 0, self._size
        if stop == self._size:
            return max(0, min(start, stop - TAIL_BYTES)), stop
        if start == self._behind:
            return start, min(self._size, max(stop, start + AHEAD_BYTES))
        return start, stop
