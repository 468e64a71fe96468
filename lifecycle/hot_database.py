"""The RocksDB of a hot store: how it is opened, read and written, and what its errors mean.

Problem: RocksDB has one class for all its errors, and what they mean could not be further apart: a full disk costs
nothing but time, what is damaged costs the store. So whatever it raises is told apart here, by its words.

There is one column family and no write-ahead log: see `hot_store` for what that means. Large values go to blob files,
which compaction leaves alone; what was deleted is still in them. `reclaim` gives the space back: a blob file of which
nothing is left goes, and where more than GARBAGE_MAX of all is of no use, what is left is written again.

GUARANTEE a block is read only if its checksum agrees: whatever is damaged, cut or lost raises HotStoreDamagedError,
when it is opened or when it is read.
GUARANTEE memory: two write buffers of 16 MiB and a block cache of 16 MiB.
GUARANTEE an error that somebody keeps does not keep the database open. HAZARD a scan that was begun and neither ended
nor closed does.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Final

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    BottommostLevelCompaction,
    Cache,
    CompactOptions,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from lifecycle.chunks import StoreDamagedError
from schemas.errors import DriftledgerError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from rocksdict import RdictIter

WRITE_BUFFER_BYTES: Final = 16 * 1024 * 1024
WRITE_BUFFERS: Final = 2
BLOCK_CACHE_BYTES: Final = 16 * 1024 * 1024
#: Sections of at least this size go to blob files, of this size.
_BLOB_LEAST_BYTES: Final = 1024
_BLOB_FILE_BYTES: Final = 64 * 1024 * 1024
#: Part of the blob files that may be of no use after `reclaim`: less is not worth writing the rest again.
GARBAGE_MAX: Final = 0.2
_OPEN_FILES_MAX: Final = 512
#: RocksDB keeps these of its own log files.
_LOG_FILES: Final = 2

_FOLDER: Final = "rocksdb"
#: Whether compaction writes blobs again that stand beside others which are of no use any more.
_COLLECTING: Final = {"enable_blob_garbage_collection": "true", "blob_garbage_collection_age_cutoff": "1.0"}
_NOT_COLLECTING: Final = {"enable_blob_garbage_collection": "false"}
#: What the system refuses, as RocksDB words it: nothing is wrong with the store.
_REFUSALS: Final = tuple(
    os.strerror(number)
    for number in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EACCES,
        errno.EROFS,
    )
)


class HotStoreDamagedError(StoreDamagedError):
    """A store as a whole is not what was written. Attributes: folder, detail."""

    def __init__(self, folder: Path, detail: str) -> None:
        super().__init__(
            f"the hot store in {folder} is damaged: {detail}. It is not served; discard it, and it is rebuilt from the "
            "ledger"
        )
        self.folder = folder
        self.detail = detail


class HotStoreUnavailableError(UnreachableError):
    """A store cannot be used now: another process has it, or the system refuses. Nothing is wrong with it."""


class HotDatabase:
    """Keys and what stands under them. Called from any thread.

    Every method raises HotStoreDamagedError, and HotStoreUnavailableError where the system refuses.
    """

    def __init__(self, folder: Path, rocks: Rdict) -> None:
        self._folder, self._rocks = folder, rocks
        self._unlogged = WriteOptions()
        self._unlogged.disable_wal = True  # type: ignore[method-assign,assignment] # a property, whatever its stub says
        self._reading = ReadOptions()
        # Costs a microsecond for each KB of a section; without it a damaged table can end the process.
        self._reading.set_verify_checksums(True)

    @classmethod
    def open(cls, folder: Path, *, create: bool = False, read_only: bool = False) -> HotDatabase:
        """That of the store in a folder. create: it is not there yet; read_only: as of the last flush."""
        if create:
            with told_as_refusal(folder):
                (folder / _FOLDER).mkdir(parents=True)
        access = AccessType.read_only(False) if read_only else AccessType.read_write()  # noqa: FBT003 - named in the stub
        try:
            rocks = Rdict(str(folder / _FOLDER), _options(create=create), access_type=access)
        except Exception as error:
            raise _told(folder, error) from error
        return cls(folder, rocks)

    @staticmethod
    def batch() -> WriteBatch:
        """Of changes, to be written as one."""
        return WriteBatch(raw_mode=True)

    def write(self, batch: WriteBatch) -> None:
        """All of it or nothing; it survives a crash after the next flush."""
        try:
            self._rocks.write(batch, self._unlogged)
        except Exception as error:
            raise _told(self._folder, error) from error

    def get(self, key: bytes) -> bytes | None:
        """What stands under a key, None for nothing."""
        try:
            content: bytes | None = self._rocks.get(key, None, self._reading)
        except Exception as error:
            raise _told(self._folder, error) from error
        return content

    def last(self, key: bytes) -> tuple[bytes, bytes] | None:
        """The last key up to this one, itself included, with what stands under it; None where there is none."""
        iterator: RdictIter | None = None
        try:
            iterator = self._rocks.iter(self._reading)
            iterator.seek_for_prev(key)
            found = (iterator.key(), iterator.value()) if iterator.valid() else None
            iterator.status()
        except Exception as error:
            raise _told(self._folder, error) from error
        finally:
            iterator = None  # as in scan
        return found

    def scan(self, start: bytes, end: bytes, *, values: bool = True) -> Generator[tuple[bytes, bytes]]:
        """Keys from start up to end, in order, with what stands under them, or nothing."""
        iterator: RdictIter | None = None
        try:
            iterator = self._rocks.iter(self._reading)
            iterator.seek(start)
            while iterator.valid() and (key := iterator.key()) < end:
                yield key, iterator.value() if values else b""
                iterator.next()
            iterator.status()  # a scan that meets damage ends early, and only here says so
        except Exception as error:
            raise _told(self._folder, error) from error
        finally:
            iterator = None  # with it, whoever keeps the error would keep the database open, closed or not

    def flush(self) -> None:
        """Return once everything written so far survives a crash of the machine."""
        try:
            self._rocks.flush(wait=True)
        except Exception as error:
            raise _told(self._folder, error) from error

    def reclaim(self) -> None:
        """Give the file system back what was deleted took; what was written is flushed."""
        try:
            self._compact()
            garbage, stored = (
                self._rocks.property_int_value(f"rocksdb.live-blob-file-{name}") or 0
                for name in ("garbage-size", "size")
            )
            if garbage > GARBAGE_MAX * stored:
                self._rocks.set_options(_COLLECTING)
                try:
                    self._compact()
                finally:
                    self._rocks.set_options(_NOT_COLLECTING)
        except Exception as error:
            raise _told(self._folder, error) from error

    def nbytes(self) -> int:
        """What its files take."""
        with told_as_refusal(self._folder):
            return sum(file.stat().st_size for file in (self._folder / _FOLDER).iterdir())

    def close(self) -> None:
        """Let go of the folder."""
        try:
            self._rocks.close()
        except Exception as error:
            raise _told(self._folder, error) from error

    def _compact(self) -> None:
        """Write all tables again; of blobs those that options say."""
        options = CompactOptions()
        options.set_bottommost_level_compaction(BottommostLevelCompaction.force())
        self._rocks.compact_range(None, None, options)


@contextlib.contextmanager
def told_as_refusal(folder: Path) -> Iterator[None]:
    """What the system refuses is no damage."""
    try:
        yield
    except OSError as error:
        raise HotStoreUnavailableError(f"the hot store in {folder} cannot be used: {error}") from error


def _options(*, create: bool) -> Options:
    tables = BlockBasedOptions()
    tables.set_block_cache(Cache(BLOCK_CACHE_BYTES))
    tables.set_cache_index_and_filter_blocks(v=True)
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(tables)
    options.create_if_missing(create)
    options.set_error_if_exists(enabled=create)
    options.set_paranoid_checks(enabled=True)
    options.set_wal_recovery_mode(DBRecoveryMode.absolute_consistency())
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(WRITE_BUFFERS)
    options.set_compression_type(DBCompressionType.none())  # chunks are compressed
    options.set_enable_blob_files(val=True)
    options.set_min_blob_size(_BLOB_LEAST_BYTES)
    options.set_blob_file_size(_BLOB_FILE_BYTES)
    options.set_blob_compression_type(DBCompressionType.none())
    options.set_max_open_files(_OPEN_FILES_MAX)
    options.set_keep_log_file_num(_LOG_FILES)
    return options


def _told(folder: Path, error: Exception) -> DriftledgerError:
    """What an error of RocksDB means; it has one class for all of them, so the words decide."""
    if isinstance(error, DriftledgerError):
        return error
    text = str(error)
    if "lock " in text.lower() and f"{_FOLDER}/LOCK: " in text:
        return HotStoreUnavailableError(f"the hot store in {folder} is open elsewhere: end the other process. {text}")
    if any(refusal in text for refusal in _REFUSALS):
        return HotStoreUnavailableError(f"the hot store in {folder} cannot be used: {text}")
    return HotStoreDamagedError(folder, text)
