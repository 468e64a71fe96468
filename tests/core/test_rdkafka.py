"""What librdkafka hands back, as far as it needs no broker."""

from __future__ import annotations

import ctypes

import pytest

from streams.librdkafka import MESSAGE_WORDS, W_ERROR, W_TOPIC
from streams.rdkafka import DELIVERY_CALLBACK

MESSAGE_TIMED_OUT = -192
MESSAGE_TOO_LARGE = 10


@pytest.mark.parametrize("code", [MESSAGE_TIMED_OUT, MESSAGE_TOO_LARGE])
def test_a_failed_delivery_keeps_the_sign_of_its_error(code: int) -> None:
    """The client's own errors are negative, the protocol's positive; the upper half of the word is padding."""
    message = (ctypes.c_int64 * MESSAGE_WORDS)()
    message[W_ERROR] = 0x7F00_0000_0000_0000 | code & 0xFFFF_FFFF
    message[W_TOPIC] = 1
    counts = (ctypes.c_int64 * 3)()
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(DELIVERY_CALLBACK)(
        None, ctypes.addressof(message), ctypes.addressof(counts)
    )
    assert list(counts) == [0, 1, code]
