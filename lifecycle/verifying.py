"""A file that the manifest names, as it lies on disk: opened, hashed and proved.

Problem: disks lose and change what was written, so nobody's word is taken for a file. Before one is pruned, or a ledger
is cut because of it, its bytes are hashed anew and every entry is made again of them.

GUARANTEE `open_segment` hands on no file that says of itself what the manifest does not.
GUARANTEE `verify` passes only bytes that were committed, whose entries end in the chain hash and the Merkle root that
the manifest has of them.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Final

from lifecycle.archive import opened
from lifecycle.chunk_codec import decode_header
from lifecycle.chunks import ChunkDamagedError
from lifecycle.file_tree import told_as_refusal
from lifecycle.layout import index_of
from lifecycle.packing import DamagedError
from lifecycle.proving import prove

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from lifecycle.archive import ArchiveFile
    from lifecycle.archive_index import Index
    from lifecycle.file_tree import FileTree
    from lifecycle.manifest import Segment
    from lifecycle.proving import Proof

_HASHED_BYTES: Final = 1024 * 1024


def verify(files: FileTree, segment: Segment) -> Proof:
    """Read a file from disk and make all of its entries again. Raises DamagedError, which names the file."""
    try:
        with files.open_checked(segment.path) as data, files.open_checked(index_of(segment.path)) as index:
            if (digest_of(data), digest_of(index)) != (segment.sha256, segment.index_sha256):
                raise DamagedError("its bytes are not those that were written")  # noqa: TRY301 - named below
        with open_segment(files, segment) as (archive, found):
            for chunk in range(found.chunks):
                blob = found.blob(chunk)
                decode_header(segment.facts.partition, blob.first_sequence, blob.header)
            return prove(archive)
    except (DamagedError, ChunkDamagedError) as error:
        facts = segment.facts
        raise DamagedError(
            f"{segment.path} (partition {facts.partition}, sequences {facts.first_sequence} to {facts.last_sequence}) "
            f"is damaged: {error}. `driftledger lifecycle run restore` makes it again, `reindex` an index alone"
        ) from error


@contextlib.contextmanager
def open_segment(files: FileTree, segment: Segment) -> Iterator[tuple[ArchiveFile, Index]]:
    """A file of the tree and its index. Raises DamagedError where it is not the one that the manifest names."""
    data = files.open_checked(segment.path)
    try:
        index = files.open_checked(index_of(segment.path))
    except BaseException:
        data.close()
        raise
    with opened(segment.path.rpartition("/")[2], data, index) as (archive, found):
        if archive.facts != segment.facts:
            raise DamagedError("it says of itself what the manifest does not")
        yield archive, found


def sha256_of(file: Path) -> str:
    """Of a file, in hexadecimal."""
    with told_as_refusal(file), file.open("rb") as content:
        return digest_of(content)


def digest_of(file: BinaryIO) -> str:
    """The SHA-256 of what is left to be read, in hexadecimal."""
    digest = hashlib.sha256()
    while content := file.read(_HASHED_BYTES):
        digest.update(content)
    return digest.hexdigest()
