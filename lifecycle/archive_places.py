"""Where the chunks and the row groups of an archive begin, as its footer says it: what no column of it tells.

Which chunk a CONTROL entry belongs to, and which entry a row group of these goes back to, is not in the rows. With this
the index of an archive follows from the archive alone.

    {"chunks": how many, "places": base64 of ints (see `packing`)}
    places    of each chunk its first sequence, of each its first index; of each row group its first index
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from lifecycle.packing import DamagedError, Reader, pack_ints

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lifecycle.archive_facts import Facts

#: Of an archive: 8,192 rows each, or 16 MiB of texts. Starts that are evenly apart take no bytes, so these do not tell.
CHUNKS_MAX: Final = 1_048_576


class Places(NamedTuple):
    """first_sequence, first_index: [chunks]; group_index: [groups], the first index of each row group."""

    first_sequence: NDArray[np.int64]
    first_index: NDArray[np.int64]
    group_index: NDArray[np.int64]


def encode_places(places: Places) -> bytes:
    """As the footer has them."""
    content = b"".join(pack_ints(column) for column in places)
    return json.dumps(
        {"chunks": places.first_sequence.size, "places": base64.b64encode(content).decode()}, separators=(",", ":")
    ).encode()


def decode_places(content: bytes, facts: Facts, groups: int) -> Places:
    """What `encode_places` gave, of an archive of these facts. Raises DamagedError for what cannot be its."""
    try:
        document = json.loads(content)
        chunks, packed = int(document["chunks"]), base64.b64decode(document["places"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"its footer does not say where its chunks begin: {error}") from error
    if not 0 < chunks <= min(facts.rows, CHUNKS_MAX):
        raise DamagedError(f"its footer says that it has {chunks} chunks")
    reader = Reader(packed)
    places = Places(reader.ints(chunks), reader.ints(chunks), reader.ints(groups))
    reader.end()
    for starts, first, last in (
        (places.first_sequence, facts.first_sequence, facts.last_sequence),
        (places.first_index, facts.first_index, facts.last_index),
    ):
        if starts[0] != first or starts[-1] > last or (np.diff(starts) <= 0).any():
            raise DamagedError(f"its footer says that its chunks begin at {starts[0]} to {starts[-1]}")
    if ((places.group_index < facts.first_index) | (places.group_index > facts.last_index)).any():
        raise DamagedError("its footer says that a row group begins at none of its entries")
    return places
