"""Raw memory, compiled and interpreted: the same program must read and write the same bytes both ways."""

from __future__ import annotations

import ctypes
import hashlib
import random
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas import memory
from schemas.memory import (
    SHA256_CONTEXT_BYTES,
    address_of,
    bind,
    bytes_at,
    copy,
    kernel,
    load_f64,
    load_i64,
    load_u8,
    sha256_final,
    sha256_init,
    sha256_update,
    store_i64,
    store_u8,
)
from tests.core.interpreted import interpreted

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


@kernel
def read_all(address: int) -> tuple[int, int, float]:
    """One of each load."""
    return load_u8(address), load_i64(address), load_f64(address)


@kernel
def write_all(target: int, source: int, byte: int, number: int) -> None:
    """One of each store: a byte, an unaligned int64 behind it, a copy behind that."""
    store_u8(target, byte)
    store_i64(target + 1, number)
    copy(target + 9, source, 7)


@kernel
def digest_of(context: int, first: int, first_length: int, second: int, second_length: int, digest: int) -> int:
    """SHA-256 over two pieces; how many of the calls succeeded."""
    done = sha256_init(context)
    done += sha256_update(context, first, first_length)
    done += sha256_update(context, second, second_length)
    done += sha256_final(digest, context)
    return int(done)


def exercise() -> bytes:
    """Everything above over seeded bytes; the outcome as bytes, to compare two processes."""
    rng = random.Random(7)
    out = bytearray()
    for length in (8, 9, 63, 64, 65, 1000):
        data = np.frombuffer(rng.randbytes(length), np.uint8)
        target = np.zeros(16, np.uint8)
        byte, number, real = read_all(address_of(data))
        assert (byte, number) == (data[0], int.from_bytes(data[:8].tobytes(), "little", signed=True))
        out += struct.pack("<qqd", byte, number, real)
        write_all(address_of(target), address_of(data), 0x1FF, number)
        assert target.tobytes() == b"\xff" + data[:8].tobytes() + data[:7].tobytes()
        out += target.tobytes()
        context, digest = np.zeros(SHA256_CONTEXT_BYTES, np.uint8), np.zeros(32, np.uint8)
        start = address_of(data)
        assert digest_of(address_of(context), start, 5, start + 5, length - 5, address_of(digest)) == 4
        assert digest.tobytes() == hashlib.sha256(data.tobytes()).digest()
        out += digest.tobytes()
    return bytes(out)


def test_the_address_of_an_array_is_what_numpy_says() -> None:
    """Of its first element: also where it is a view, empty, read-only, or of records."""
    whole = np.arange(24, dtype=np.int64)
    arrays: list[np.ndarray[Any, Any]] = [
        whole,
        whole[3:],
        whole.reshape(4, 6)[1:, 2:],
        whole[::-1],
        whole[:0],
        np.frombuffer(b"abc", np.uint8),
    ]
    arrays += [np.zeros(2, [("a", "i4"), ("b", "f8")])["b"], np.zeros((), np.float64)]
    assert [address_of(array) for array in arrays] == [array.__array_interface__["data"][0] for array in arrays]


def test_kernels_read_write_and_hash_the_same_compiled_and_interpreted() -> None:
    """The same exercise here and in a process with NUMBA_DISABLE_JIT=1."""
    assert interpreted("tests.core.test_memory", "exercise()") == exercise()


def test_a_bound_c_function_can_be_called_from_a_kernel() -> None:
    """Bound by name, with plain integers for pointers."""
    strlen = bind(
        "driftledger_test_strlen", ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p).value or 0, "int64", "int64"
    )

    @kernel
    def length_of(address: int) -> int:
        return int(strlen(address))

    text = np.frombuffer(b"four\0five\0", np.uint8)
    assert length_of(address_of(text)) == 4
    assert bytes_at(address_of(text) + 5, 4) == b"five"


def test_hashlib_stands_in_where_libcrypto_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same three calls, slower, and the same digest; several contexts may be open at once."""
    monkeypatch.setattr("ctypes.util.find_library", lambda _name: None)
    addresses = memory._sha256_addresses()
    assert addresses == memory._HASHLIB.addresses
    pointer = ctypes.c_int64
    init = ctypes.CFUNCTYPE(ctypes.c_int32, pointer)(addresses[0])
    update = ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer, pointer)(addresses[1])
    final = ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer)(addresses[2])
    data = np.frombuffer(b"abcdef", np.uint8)
    digest = np.zeros(32, np.uint8)
    assert init(1) == init(2) == 1
    assert update(1, address_of(data), 3) == update(2, address_of(data), 6) == 1
    assert final(address_of(digest), 2) == 1
    assert digest.tobytes() == hashlib.sha256(b"abcdef").digest()
    assert final(address_of(digest), 1) == 1
    assert digest.tobytes() == hashlib.sha256(b"abc").digest()


def test_hashlib_stands_in_for_a_libcrypto_without_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is no libcrypto is not an accident."""
    for library in ("libc.so.6", "no-such-library.so"):
        monkeypatch.setattr("ctypes.util.find_library", lambda _name, found=library: found)
        assert memory._sha256_addresses() == memory._HASHLIB.addresses


def test_every_change_of_the_sources_is_another_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A change in an inlined helper must not meet kernels compiled from the old one; others may change."""
    (tmp_path / "schemas").mkdir()
    source = tmp_path / "schemas" / "memory.py"
    source.write_text("one")
    (tmp_path / "streams").mkdir()
    user, helper, other = (tmp_path / "streams" / f"{name}.py" for name in ("user", "helper", "other"))
    user.write_text(
        "from streams.severity import (\n    LIMIT,\n)\nfrom streams import helper\n\n@kernel\ndef f(): ...\n"
    )
    helper.write_text("one")
    other.write_text("one")
    monkeypatch.setattr(memory, "__file__", str(source))
    before = memory.sources_state()
    other.write_text("two")
    assert memory.sources_state() == before
    helper.write_text("two")
    after = memory.sources_state()
    assert after != before
    (tmp_path / "streams" / "severity.py").write_text("new")
    later = memory.sources_state()
    assert later != after
    (tmp_path / "lifecycle").mkdir()
    (tmp_path / "lifecycle" / "kernels.py").write_text("@kernel\ndef f(): ...\n")
    assert memory.sources_state() != later
