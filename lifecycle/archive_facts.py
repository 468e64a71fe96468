"""What an archive says of itself, and the name that follows from it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_type_hints

from lifecycle.chunks import HASH_BYTES
from lifecycle.packing import DamagedError
from schemas.merkle import Span
from streams.sequence import Head

if TYPE_CHECKING:
    from collections.abc import Mapping

WRITER_VERSION: Final = 1
_DIGEST_BYTES: Final = 8


class Compression(enum.StrEnum):
    """Of an archive's columns."""

    #: As Parquet's LZ4_RAW.
    LZ4 = "lz4"
    ZSTD = "zstd"


class Facts(NamedTuple):
    """What an archive says of itself, in its footer. Hashes as hexadecimal text.

    chain_before, chain_after: of the entries before the first and of the last. merkle: of the chain hashes of its
    entries at places index - 1, (level, hash) as in `schemas.merkle`; merkle_root: their root. order_ms: the running
    maximum of authority time before it.
    """

    partition: int
    first_index: int
    last_index: int
    first_sequence: int
    last_sequence: int
    input_offset_before: int
    control_offset_before: int
    input_offset: int
    control_offset: int
    authority_ms_min: int
    authority_ms_max: int
    order_ms: int
    chain_before: str
    chain_after: str
    merkle_root: str
    merkle: tuple[tuple[int, str], ...]
    event_fingerprint: str
    entry_fingerprint: str
    writer_version: int = WRITER_VERSION

    @property
    def head_before(self) -> Head:
        """The ledger's before its first entry."""
        return Head(
            self.first_index - 1,
            self.first_sequence - 1,
            self.input_offset_before,
            self.control_offset_before,
            bytes.fromhex(self.chain_before),
        )

    @property
    def head(self) -> Head:
        """The ledger's after its last entry."""
        return Head(
            self.last_index, self.last_sequence, self.input_offset, self.control_offset, bytes.fromhex(self.chain_after)
        )

    @property
    def span(self) -> Span:
        """Of its chain hashes in the partition's Merkle tree."""
        nodes = tuple((level, bytes.fromhex(node)) for level, node in self.merkle)
        return Span(self.first_index - 1, self.last_index, nodes)

    @property
    def entries(self) -> int:
        """How many there are."""
        return self.last_index - self.first_index + 1

    @property
    def rows(self) -> int:
        """How many of them are DATA."""
        return self.last_sequence - self.first_sequence + 1


def facts_of(document: Mapping[str, Any]) -> Facts:
    """From their members as JSON has them. Raises TypeError, KeyError or ValueError for others."""
    merkle = tuple((int(level), bytes.fromhex(node).hex()) for level, node in document["merkle"])
    for name, value in document.items():
        if name != "merkle" and type(value) is not _KINDS[name]:
            raise TypeError(f"{name} is {value!r:.80}")
        if name in _HASHES and len(bytes.fromhex(value)) != HASH_BYTES:
            raise ValueError(f"{name} is {value!r:.80}")
    return Facts(**{**document, "merkle": merkle})


_KINDS: Final = get_type_hints(Facts)
_HASHES: Final = ("chain_before", "chain_after", "merkle_root")


def name_of(facts: Facts, digest: bytes) -> str:
    """The name of a file with that SHA-256 of its footer."""
    return (
        f"p{facts.partition:05d}-{facts.first_index:018d}-{facts.last_index:018d}-"
        f"{digest[:_DIGEST_BYTES].hex()}.parquet"
    )


def digest_in(name: str) -> bytes:
    """What a name says of the footer. Raises DamagedError for a name that is none."""
    digest = name.removesuffix(".parquet").rpartition("-")[2]
    try:
        found = bytes.fromhex(digest)
    except ValueError:
        found = b""
    if len(found) != _DIGEST_BYTES or not name.endswith(".parquet"):
        raise DamagedError(f"{name!r} is not the name of an archive")
    return found
