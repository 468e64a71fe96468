"""Headers as columns: what is held, what is given up and read again, and what codes mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lifecycle.catalog import BLOCK_CHUNKS, Catalog, Names
from schemas.instants import INT64_MAX, INT64_MIN
from streams.windows import Frame
from tests.core.hot_rows import DictionaryStore, odd_rows

if TYPE_CHECKING:
    from lifecycle.catalog import Block

ALL = (INT64_MIN, INT64_MAX)


def _blocks(catalog: Catalog, partition: int) -> list[Block]:
    return list(catalog.blocks(partition, Frame.LOCAL, *ALL))


def _lines(block: Block, catalog: Catalog) -> list[tuple[object, ...]]:
    lines = block.lines[Frame.LOCAL]
    names = [catalog.sources.names[code] for code in lines.source.tolist()]
    return sorted(zip(names, lines.minute.tolist(), lines.count.tolist(), lines.sum.tolist(), strict=False))


def test_lines_of_all_chunks_are_there_in_order_of_source() -> None:
    """Once each, under the names of the header, ascending by the catalog's codes within a chunk."""
    store = DictionaryStore({0: odd_rows(0, 700, 1)}, chunk_rows=5)
    catalog = Catalog(store)
    assert catalog.refresh(0)[0] == 701
    headers = store.headers(0, 1, 1_000)
    blocks = _blocks(catalog, 0)
    assert [block.chunks for block in blocks[:-1]] == [BLOCK_CHUNKS] * (len(blocks) - 1)
    assert sum(block.chunks for block in blocks) == len(headers) == catalog.chunks_in(0)
    at = iter(headers)
    for block in blocks:
        lines = block.lines[Frame.LOCAL]
        for chunk in range(block.chunks):
            header = next(at)
            part = slice(lines.start[chunk], lines.start[chunk + 1])
            assert np.all(np.diff(lines.source[part]) >= 0)
            found = sorted(zip([catalog.sources.names[c] for c in lines.source[part]], lines.count[part], strict=True))
            stats = header.stats
            assert found == sorted(zip([header.sources[c] for c in stats.source], stats.count, strict=True))
            assert [catalog.kinds.names[code] for code in block.kinds.of(chunk)] == list(header.kinds)


def test_a_bound_gives_blocks_up_and_reads_them_again() -> None:
    """With the same lines; what is held stays within the bound."""
    store = DictionaryStore({p: odd_rows(p, 500, 2) for p in (0, 1)}, chunk_rows=3)
    wide = Catalog(store)
    for partition in (0, 1):
        wide.refresh(partition)
    bound = 2 * max(block.nbytes for block in _blocks(wide, 0))
    narrow = Catalog(store, bound)
    for _ in range(2):
        for partition in (1, 0):
            narrow.refresh(partition)
            for one, other in zip(_blocks(wide, partition), narrow.blocks(partition, Frame.LOCAL, *ALL), strict=True):
                assert _lines(one, wide) == _lines(other, narrow)
                assert narrow.held_bytes <= bound
    assert narrow.headers_read > wide.headers_read
    assert wide.held_bytes > bound


def test_blocks_apart_from_the_range_are_not_touched() -> None:
    """Neither held nor read again."""
    store = DictionaryStore({0: odd_rows(0, 700, 3)}, chunk_rows=5)
    catalog = Catalog(store, 0)
    catalog.refresh(0)
    read = catalog.headers_read
    last = int(store.contents[0].rows.authority_ms.max())
    assert len(list(catalog.blocks(0, Frame.AUTHORITY, last, INT64_MAX))) == 1
    assert list(catalog.blocks(0, Frame.AUTHORITY, last + 1, INT64_MAX)) == []
    assert catalog.headers_read == read


def test_only_new_headers_are_read() -> None:
    """However often it is asked."""
    store = DictionaryStore({0: odd_rows(0, 500, 4)}, chunk_rows=4, unsealed=300)
    catalog = Catalog(store)
    catalog.refresh(0)
    before = catalog.headers_read
    store.seal(0, 100)
    assert catalog.refresh(0)[0] == 401
    assert catalog.refresh(0)[0] == 401
    assert catalog.headers_read == catalog.chunks_in(0) == len(store.headers(0, 1, 1_000))
    assert before < catalog.headers_read


def test_codes_are_given_once() -> None:
    """Unknown names have none, and asking for them gives them none."""
    names = Names()
    assert names.codes([b"b", b"a", b"b"]).tolist() == [0, 1, 0]
    assert names.known([b"x", b"a", b"b"]).tolist() == [0, 1]
    assert names.mask([b"a", b"x"]).tolist() == [0, 1]
    assert (names.code(b"a"), names.code(b"x")) == (1, -1)
    assert names.names == [b"b", b"a"]
