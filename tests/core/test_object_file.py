"""Objects read as files: the same bytes, by few requests."""

from __future__ import annotations

import io
import random
from typing import TYPE_CHECKING

import pytest

from lifecycle.object_file import AHEAD_BYTES, TAIL_BYTES, WHOLE_BYTES, ObjectFile

if TYPE_CHECKING:
    from collections.abc import Callable

LARGE = random.Random(1).randbytes(3 * WHOLE_BYTES + 12_345)


class Asked:
    """A file, and what was fetched for it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.ranges: list[tuple[int, int]] = []
        self.closed = 0
        self.file = ObjectFile(self.fetch, len(content), self.close)

    def fetch(self, start: int, size: int) -> bytes:
        """A range."""
        self.ranges.append((start, size))
        return self.content[start : start + size]

    def close(self) -> None:
        """Count."""
        self.closed += 1

    def read(self, start: int, size: int) -> bytes:
        """As readers do."""
        self.file.seek(start)
        return self.file.read(size)


@pytest.mark.parametrize("size", [0, 1, TAIL_BYTES, WHOLE_BYTES, WHOLE_BYTES + 1, len(LARGE)])
def test_it_reads_as_a_file_does(size: int) -> None:
    """Any reads in any order, beyond its end too."""
    content = LARGE[:size]
    asked, plain, rng = Asked(content), io.BytesIO(content), random.Random(size)
    for _ in range(300):
        if rng.random() < 0.5:
            whence = rng.choice([io.SEEK_SET, io.SEEK_END])
            offset = rng.randrange(size + 10) if whence == io.SEEK_SET else -rng.randrange(size + 1)
            assert asked.file.seek(offset, whence) == plain.seek(offset, whence)
        count = rng.choice([-1, 0, 1, 8, 5_000, 300_000, AHEAD_BYTES])
        assert asked.file.read(count) == plain.read(count)
        assert asked.file.tell() == plain.tell() or plain.tell() > size
    assert asked.file.readable()
    assert asked.file.seekable()
    asked.file.close()
    asked.file.close()
    assert asked.closed == 1


def test_a_small_object_is_one_request() -> None:
    """An index: its frame, its table, then chunk after chunk."""
    asked = Asked(LARGE[:100_000])
    for start in (0, 0, 8, 500, 99_000, 40_000):
        assert asked.read(start, 400) == LARGE[start : start + 400]
    assert asked.ranges == [(0, 100_000)]


def test_an_archive_is_opened_by_one_request_and_a_column_read_by_one() -> None:
    """The length of the footer, the footer, the column; no byte of others."""
    asked, size = Asked(LARGE), len(LARGE)
    assert asked.read(size - 8, 8) == LARGE[-8:]
    assert asked.read(size - 9_000, 9_000) == LARGE[-9_000:]
    assert asked.ranges == [(size - TAIL_BYTES, TAIL_BYTES)]
    for start in (70_000, 3_000_000, 200_000):
        assert asked.read(start, 60_000) == LARGE[start : start + 60_000]
    assert asked.ranges[1:] == [(70_000, 60_000), (3_000_000, 60_000), (200_000, 60_000)]


@pytest.mark.parametrize("read", [1_000, 64 * 1024, 1024 * 1024, AHEAD_BYTES + 1])
def test_what_is_read_from_end_to_end_is_fetched_in_large_parts(read: int) -> None:
    """Whatever the reader's are."""
    asked = Asked(LARGE)
    content = b"".join(iter(lambda: asked.file.read(read), b""))
    assert content == LARGE
    assert len(asked.ranges) <= 2 + len(LARGE) // min(AHEAD_BYTES, max(read, AHEAD_BYTES - read))
    assert max(size for _, size in asked.ranges) <= max(read, AHEAD_BYTES)


def test_an_object_that_has_become_shorter_gives_what_is_there() -> None:
    """Whoever asked compares the length."""
    asked = Asked(LARGE)
    asked.content = LARGE[:1_000]
    assert asked.read(500, 1_000) == LARGE[500:1_000]
    assert asked.read(2_000, 10) == b""


def test_an_error_leaves_it_as_it_was() -> None:
    """The same read may be tried again."""
    asked = Asked(LARGE)

    def refuse(_start: int, _size: int) -> bytes:
        raise OSError("no")

    fetch: Callable[[int, int], bytes] = asked.file._fetch
    asked.file._fetch = refuse
    asked.file.seek(70_000)
    with pytest.raises(OSError, match="no"):
        asked.file.read(10)
    asked.file._fetch = fetch
    assert asked.file.read(10) == LARGE[70_000:70_010]
