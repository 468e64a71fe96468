"""The source table against a dictionary: exact names, numbers for ever, room that is made where it must be."""

from __future__ import annotations

import random

import numpy as np
import pytest

from schemas.memory import JIT, address_of
from streams.sources import (
    COUNT,
    HOT_COLUMNS,
    LAST_SEQUENCE,
    NUMBER,
    STATE,
    Sources,
    Watched,
    add,
    find,
    grown,
    has_room,
    hash_of,
    least_needed,
    lengths_of,
    name_of,
    no_names,
    no_sources,
    only,
    rebuilt,
    with_names,
)


class _Names:
    """Names at addresses, without a byte to spare on either side."""

    def __init__(self) -> None:
        self._kept: list[np.ndarray[tuple[int], np.dtype[np.uint8]]] = []

    def place(self, name: bytes) -> tuple[int, int]:
        self._kept.append(np.frombuffer(name, np.uint8).copy())
        return address_of(self._kept[-1]), len(name)


def _put(table: Sources, names: _Names, name: bytes, digest: int | None = None) -> tuple[Sources, int]:
    """Find or add, growing where the table is full."""
    at = names.place(name)
    digest = hash_of(*at) if digest is None else digest
    slot = find(table.places, table.hot, table.arena, *at, digest)
    if slot < 0:
        if not has_room(table):
            table = grown(table)
        slot = add(table, address_of(table.arena), *at, digest)
    return table, slot


def _varied_names(rng: random.Random, count: int) -> list[bytes]:
    stems = [b"", b"s", b"sensor-", b"x" * 20, b"x" * 24, b"x" * 25, b"x" * 200, b"\0" * 8]
    return [(rng.choice(stems) + rng.randbytes(rng.randrange(1, 50)))[:256] for _ in range(count)]


def test_names_get_numbers_in_the_order_they_come_and_keep_them() -> None:
    """Through growth of slots and arena, with names of every length."""
    rng, names, table = random.Random(1), _Names(), no_sources()
    expected: dict[bytes, int] = {}
    for name in [bytes([65 + n % 26]) * n for n in range(1, 257)] + _varied_names(rng, 6_000):
        expected.setdefault(name, len(expected) + 1)
        table, slot = _put(table, names, name)
        assert table.hot[slot, NUMBER] == expected[name]
        assert name_of(table, slot) == name
    assert table.used[COUNT] == len(expected)
    for name, number in expected.items():
        table, slot = _put(table, names, name)
        assert table.hot[slot, NUMBER] == number


@pytest.mark.parametrize("length", [1, 7, 8, 9, 23, 24, 25, 31, 32, 256 if JIT else 64])
def test_names_that_differ_in_one_byte_are_different_whatever_their_hash(length: int) -> None:
    """One hash for all, so that only the bytes can tell them apart; zero bytes and lengths count too."""
    names, table = _Names(), no_sources()
    base = bytes(length)
    family = [base, *(base[:i] + b"\1" + base[i + 1 :] for i in range(length)), base[:-1] or b"\2"]
    for number, name in enumerate(family, 1):
        table, slot = _put(table, names, name, digest=7)
        assert table.hot[slot, NUMBER] == number, name
    for number, name in enumerate(family, 1):
        table, slot = _put(table, names, name, digest=7)
        assert table.hot[slot, NUMBER] == number


def test_hashes_of_similar_names_spread() -> None:
    """A million names of one fleet would not end up in a few chains."""
    names = _Names()
    places = {hash_of(*names.place(b"sensor-%06d" % i)) & 0x3FFF for i in range(10_000)}
    assert len(places) > 7_000


def test_room_is_made_by_the_longest_silent_without_an_alert_first() -> None:
    """An eighth goes at once; those with an open alert only when nobody else is left."""
    names, table = _Names(), no_sources()
    for i in range(16):
        table, slot = _put(table, names, b"n%d" % i)
        table.hot[slot, LAST_SEQUENCE] = (i * 7) % 16 + 1
        table.hot[slot, STATE] = 1 if i in {0, 7} else 0
    last = table.hot[:16, LAST_SEQUENCE].tolist()
    quiet = sorted((s for s in range(16) if s not in {0, 7}), key=lambda s: last[s])
    leaving, staying = least_needed(table, 16)
    assert leaving.tolist() == quiet[:2]
    assert staying.tolist() == sorted(set(range(16)) - set(quiet[:2]))
    leaving, staying = least_needed(table, 1)
    assert leaving.tolist() == [*quiet, *sorted((0, 7), key=lambda s: last[s])]
    assert staying.size == 0


def test_those_who_stay_keep_numbers_and_names_and_the_gone_come_back_as_new() -> None:
    """Numbers are never given twice."""
    rng, names, table = random.Random(2), _Names(), no_sources()
    family = list(dict.fromkeys(_varied_names(rng, 500)))
    for name in family:
        table, slot = _put(table, names, name)
        table.watch[slot] = table.clocks[slot] = table.points[slot] = slot
    stay = np.arange(0, len(family), 3)
    table = only(table, stay)
    for slot, old in enumerate(stay.tolist()):
        assert name_of(table, slot) == family[old]
        assert table.hot[slot, NUMBER] == old + 1
        assert (table.watch[slot, 0], table.clocks[slot, 0], table.points[slot, 0, 0]) == (old, old, old)
        assert _put(table, names, family[old])[1] == slot
    table, slot = _put(table, names, family[1])
    assert table.hot[slot, NUMBER] == len(family) + 1


def test_a_table_rebuilt_from_its_parts_finds_the_same() -> None:
    """Numbers, states, names, watches, clocks and their points are all there is."""
    rng, names, table = random.Random(3), _Names(), no_sources()
    family = list(dict.fromkeys(_varied_names(rng, 300)))
    for name in family:
        table, _ = _put(table, names, name)
    count = int(table.used[COUNT])
    table.clocks[:count] = np.arange(count)[:, None]
    table.points[:count] = np.arange(count)[:, None, None]
    watched = Watched(table.watch[:count], table.clocks[:count], table.points[:count])
    again = rebuilt(table.hot[:count], watched, lengths_of(table), table.arena[: int(table.used[2])], count)
    assert all(np.array_equal(getattr(again, name)[:count], kept) for name, kept in watched._asdict().items())
    assert again.hot[:count].tobytes() == table.hot[:count].tobytes()
    for number, name in enumerate(family, 1):
        assert again.hot[_put(again, names, name)[1], NUMBER] == number


def test_only_a_table_of_names_has_no_room_for_watches() -> None:
    """However few sources there are, one that is judged has a watch for each that fits, rebuilt and grown too."""
    none = np.zeros((0, HOT_COLUMNS), np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8)
    hot, lengths, names = none
    watched = Watched(*(getattr(no_sources(), name)[:0] for name in Watched._fields))
    judged = (no_sources(), rebuilt(hot, watched, lengths, names, 0))
    unwatched = (no_names(), with_names(5, 50), rebuilt(hot, None, lengths, names, 0))
    for table in (*judged, *map(grown, judged), *(only(table, np.arange(0)) for table in judged)):
        assert {len(getattr(table, name)) for name in Watched._fields} == {table.hot.shape[0]}
    for table in (*unwatched, *map(grown, unwatched), *(only(table, np.arange(0)) for table in unwatched)):
        assert {len(getattr(table, name)) for name in Watched._fields} == {0}
