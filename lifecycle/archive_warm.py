"""Compiles every kernel that jobs call, by sealing a few rows and making them again: jobs run beside lanes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lifecycle.archive_table import control_of, control_table, data_of, data_table
from lifecycle.archiving import gathered
from lifecycle.chunks import ChunkBytes
from lifecycle.merkle_kernel import SpanBuilder
from lifecycle.packing import texts_of
from lifecycle.sealing import Numbers, columns_of, copied, entries_of, sealing_of
from lifecycle.store import Store
from schemas.canonical import EntryKind
from schemas.columns import slice_rows
from streams.sequence import Head, encode, relink, verify

if TYPE_CHECKING:
    from schemas.columns import Entries
    from streams.judge import Outputs


def warm_archives(entries: Entries, judged: Outputs) -> None:
    """Load the kernels, compiling what the cache does not hold. entries: some whose last ends a chunk before it."""
    fold = Store()
    chunks = fold.step(fold.new_state(0), entries, judged)
    rows, sources, kinds = gathered(
        0, [ChunkBytes(chunk.first_sequence, chunk.header, chunk.sections) for chunk in chunks]
    )
    data = copied(slice_rows(entries, 0, rows.index.size)).entries
    sealing = sealing_of(data, columns_of(rows, texts_of(sources), texts_of(kinds)))
    # What comes from a file cannot be written to, which is another type to a kernel.
    found, sealed, names = data_of(data_table(0, rows, sealing, sources, kinds))
    numbers = Numbers(data.sequence, data.index, data.input_offset, data.authority_ms)
    control, control_sealed = control_of(control_table(0, numbers, sealing_of(data, None)))
    made = entries_of(EntryKind.DATA, found, sealed, columns_of(found, *names))
    for again in (made, entries_of(EntryKind.CONTROL, control, control_sealed, None)):
        relink(bytes(32), again.entries)
        verify(Head(), again.entries)
        encode(again.entries)
    SpanBuilder(0).add(np.ascontiguousarray(data.chain_hash))
