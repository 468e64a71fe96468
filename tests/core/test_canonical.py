"""The canonical bytes and the chain, pinned: a change of any byte here breaks every ledger that exists."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.canonical import (
    CHAIN_START,
    NULL_VALUE_HASH,
    AuthorityKind,
    EntryFields,
    EntryKind,
    ValueState,
    canonical_bytes,
    canonical_headers,
    chain_hash,
    value_hash,
)

GENESIS = EntryFields(
    kind=EntryKind.CONTROL, index=1, sequence=0, input_offset=-1, control_offset=0, input_leader_epoch=-1,
    authority_timestamp_ms=1_700_000_000_123, authority_kind=AuthorityKind.APPENDED, value_state=ValueState.PRESENT,
    value_length=3, value_hash=value_hash(b"abc"), headers=[], key=None,
)  # fmt: skip
DATA = dataclasses.replace(
    GENESIS, kind=EntryKind.DATA, index=2, sequence=1, input_offset=41, input_leader_epoch=7, key=b"sensor-1"
)
HEADERS = [(b"trace", b"\x00\xff"), (b"trace", None), (b"", b"")]

#: SHA-256 of "abc", as FIPS 180-2 prints it.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
DATA_HEAD = (
    "01 00000001 00"
    "02 00000008 0000000000000002"
    "03 00000008 0000000000000001"
    "04 00000008 0000000000000029"
    "05 00000008 0000000000000000"
    "06 00000004 00000007"
    "07 00000008 0000018bcfe5687b"
    "08 00000001 00"
)
DATA_VALUE = f"09 00000001 00 0a 00000008 0000000000000003 0b 00000020 {ABC}"
KEY = "0d 00000008 73656e736f722d31"
GOLDEN: dict[str, tuple[EntryFields, str, str]] = {
    "a control entry before any input": (
        GENESIS,
        (
            "01 00000001 01"
            "02 00000008 0000000000000001"
            "03 00000008 0000000000000000"
            "04 00000008 ffffffffffffffff"
            "05 00000008 0000000000000000"
            "06 00000004 ffffffff"
            "07 00000008 0000018bcfe5687b"
            f"08 00000001 00 {DATA_VALUE} 0c 00000000"
        ),
        "308deee2af8cda5edcf6b83db288de9024eaa902e4f1b15ebd6156c1a9adea4e",
    ),
    "data with a key": (
        DATA,
        f"{DATA_HEAD} {DATA_VALUE} 0c 00000000 {KEY}",
        "75779f9d9923fdbd4d28bb9886c05f515cdd1e64e533d1221375a8e3654faef1",
    ),
    "data with a null key": (
        dataclasses.replace(DATA, key=None),
        f"{DATA_HEAD} {DATA_VALUE} 0c 00000000",
        "498a8f1b2a4b39e28918390afa0bcd8332f3d142088c5e33be30e7d19d474b31",
    ),
    "data with an empty key": (
        dataclasses.replace(DATA, key=b""),
        f"{DATA_HEAD} {DATA_VALUE} 0c 00000000 0d 00000000",
        "8ee9d46c5c8cdbb8f7d21493acdc988689fa15b4916b269d6026c30a53ae8112",
    ),
    "a null value": (
        dataclasses.replace(DATA, value_state=ValueState.NULL, value_length=-1, value_hash=NULL_VALUE_HASH),
        f"{DATA_HEAD} 09 00000001 01 0a 00000008 ffffffffffffffff 0b 00000020 {'00' * 32} 0c 00000000 {KEY}",
        "1ba6bd21ff9d104c8866469f7da07686855c1cc7e667448c5b3d5386e9acce32",
    ),
    "headers with a null value and a duplicate": (
        dataclasses.replace(DATA, headers=HEADERS),
        (
            f"{DATA_HEAD} {DATA_VALUE} 0c 00000027 00000003"
            "00000005 7472616365 01 00000002 00ff"
            "00000005 7472616365 00"
            f"00000000 01 00000000 {KEY}"
        ),
        "b1087843a930b25601bb57db35fbf2d342e162b7ab7e3e2e020cafd5182282da",
    ),
    "an omitted value observed at arrival": (
        dataclasses.replace(DATA, authority_kind=AuthorityKind.OBSERVED, value_state=ValueState.OMITTED),
        f"{DATA_HEAD[:-2]}01 {DATA_VALUE.replace('09 00000001 00', '09 00000001 02')} 0c 00000000 {KEY}",
        "c0d858d6fb5c02474bf178d46fa40d3e7a066440c27c6cbf5e4860de35cd3235",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_canonical_bytes_are_the_pinned_ones(name: str) -> None:
    """Tag, length, payload, written out by hand from the layout in the module."""
    entry, canonical, chain = GOLDEN[name]
    assert canonical_bytes(entry).hex() == canonical.replace(" ", "")
    assert chain_hash(CHAIN_START, entry).hex() == chain


def test_the_chain_binds_each_entry_to_the_one_before() -> None:
    """The hash of the second entry starts from the hash of the first."""
    first = chain_hash(CHAIN_START, GENESIS)
    assert chain_hash(first, DATA) == hashlib.sha256(first + canonical_bytes(DATA)).digest()
    assert chain_hash(first, DATA) != chain_hash(CHAIN_START, DATA)


def test_erasing_a_value_changes_nothing() -> None:
    """An ERASED entry is hashed as if the value were still PRESENT; OMITTED and NULL are not."""
    erased = dataclasses.replace(DATA, value_state=ValueState.ERASED)
    assert canonical_bytes(erased) == canonical_bytes(DATA)
    omitted = dataclasses.replace(DATA, value_state=ValueState.OMITTED)
    assert canonical_bytes(omitted) != canonical_bytes(DATA)


def test_a_null_value_hashes_to_zeros_and_an_empty_one_does_not() -> None:
    """Null and empty are different values."""
    assert value_hash(None) == NULL_VALUE_HASH == bytes(32)
    assert value_hash(b"") == hashlib.sha256().digest()


def test_header_names_as_text_or_bytes_are_the_same() -> None:
    """Text is its UTF-8; what was not UTF-8 comes back through surrogateescape."""
    assert canonical_headers([("é", b"1")]) == canonical_headers([("é".encode(), b"1")])
    raw = b"\xff\xfe"
    assert canonical_headers([(raw.decode("utf-8", "surrogateescape"), None)]) == canonical_headers([(raw, None)])
    assert canonical_headers([]) == b""


CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "kind": st.sampled_from(EntryKind),
    "index": st.integers(-(1 << 63), (1 << 63) - 1),
    "sequence": st.integers(-(1 << 63), (1 << 63) - 1),
    "input_offset": st.integers(-1, 1 << 62),
    "control_offset": st.integers(-1, 1 << 62),
    "input_leader_epoch": st.integers(-(1 << 31), (1 << 31) - 1),
    "authority_timestamp_ms": st.integers(-(1 << 63), (1 << 63) - 1),
    "authority_kind": st.sampled_from(AuthorityKind),
    "value_state": st.sampled_from([ValueState.PRESENT, ValueState.NULL, ValueState.OMITTED]),
    "value_length": st.integers(-1, 1 << 40),
    "value_hash": st.binary(min_size=32, max_size=32),
    "headers": st.lists(st.tuples(st.binary(max_size=3), st.none() | st.binary(max_size=3)), max_size=3),
    "key": st.none() | st.binary(max_size=3),
}
ENTRIES = st.builds(EntryFields, **CHANGES)


@given(ENTRIES, ENTRIES)
def test_different_entries_have_different_canonical_bytes(one: EntryFields, other: EntryFields) -> None:
    """No two spellings meet: a header cannot pass for a key, nor a name for a value."""
    assert (canonical_bytes(one) == canonical_bytes(other)) == (one == other)


@given(st.data(), st.sampled_from(sorted(CHANGES)))
def test_changing_any_one_field_changes_the_chain(data: st.DataObject, field: str) -> None:
    """There is no field that the chain does not cover."""
    changed = dataclasses.replace(DATA, **{field: data.draw(CHANGES[field])})
    assert (chain_hash(CHAIN_START, changed) == chain_hash(CHAIN_START, DATA)) == (changed == DATA)


def test_hashes_of_another_length_are_refused() -> None:
    """A cut hash would shift every byte after it."""
    with pytest.raises(ValueError, match="value_hash has 31 bytes"):
        canonical_bytes(dataclasses.replace(DATA, value_hash=bytes(31)))
    with pytest.raises(ValueError, match="previous chain hash has 0 bytes"):
        chain_hash(b"", DATA)
