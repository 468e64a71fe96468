"""Control records: one codec for who writes them and who reads them."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.codec import DecodeError, single_object_prefix
from schemas.errors import BadInputError
from schemas.instants import INT64_MAX, INT64_MIN
from streams.control import decode_control, decode_said, encode_control, is_cut, is_heartbeat, is_lock, read_control

GENESIS = {
    "cluster_id": "c", "topic": "t", "topic_id": "i", "partition": 0, "partitions": 1, "lanes": 1, "base_offset": 0,
    "format_version": 1,
}  # fmt: skip
BODIES: dict[str, dict[str, Any]] = {
    "Genesis": GENESIS,
    "Heartbeat": {
        "predecessor_appended_ms": INT64_MAX,
        "input_end_offset": INT64_MAX,
        "worker_us": INT64_MIN,
        "round_trip": {"appended_ms": 5, "acked_us": INT64_MAX},
    },
    "Definition": {"name": "judge", "body": "{}"},
    "Anchor": {"source": "a", "anchor_timestamp": None},
    "Verify": {"source": "v", "client_timestamp": INT64_MIN},
    "FoldVersion": {"fold": "judge", "version": 2},
    "Lock": {"engaged": True, "scope": "s", "halts": ["put"], "source": "CLI", "client_timestamp": INT64_MIN},
    "Cut": {
        "before_index": 5, "before_sequence": 3, "chain_hash": bytes(32), "archives": 2, "first_index": 1,
        "last_index": 9, "merkle_root": bytes(range(32)), "job": "j", "topic": "t", "topic_id": "i", "partitions": 4,
        "lanes": 2, "base_offset": 7, "framing": "json",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", BODIES)
def test_what_was_written_is_read(kind: str) -> None:
    """Every kind; only a heartbeat passes for one."""
    value = encode_control(kind, BODIES[kind], "ada", "because")
    assert read_control(value) == decode_control(value) == (kind, BODIES[kind])
    assert is_heartbeat(value) is (kind == "Heartbeat")
    assert is_lock(value) is (kind == "Lock")
    assert is_cut(value) is (kind == "Cut")
    assert decode_said(value) == (kind, BODIES[kind], "ada", "because")


@pytest.mark.parametrize("value", [None, b"", b"\xc3\x01", b"no control record", bytes(10)])
def test_what_is_no_control_record_means_nothing(value: bytes | None) -> None:
    """Read without an error by who passes it over, refused to who counts it."""
    assert read_control(value) == ("", {})
    assert not is_heartbeat(value or b"")
    assert not is_lock(value or b"")
    with pytest.raises(DecodeError):
        decode_control(value or b"")


def test_a_body_of_another_kind_is_refused() -> None:
    """Before anything is written."""
    with pytest.raises(BadInputError):
        encode_control("Anchor", BODIES["Verify"], "ada", "because")
    with pytest.raises(BadInputError):
        encode_control("Lock", {}, "ada", "because")


def test_a_kind_that_came_later_changes_no_bytes_of_others() -> None:
    """What was written before is read, and what is written is what it was; a kind has its own fingerprint alone."""
    values = {kind: encode_control(kind, body, "ada", "because") for kind, body in BODIES.items()}
    prefixes = {kind: value[:10].hex() for kind, value in values.items()}
    cut = prefixes.pop("Cut")
    assert set(prefixes.values()) == {"c3018eb490152750f0d8"}
    assert cut != "c3018eb490152750f0d8"
    assert single_object_prefix("Control").hex() == "c3018eb490152750f0d8"
    for kind, value in values.items():
        other = bytes.fromhex("c3018eb490152750f0d8" if kind == "Cut" else cut) + value[10:]
        assert read_control(other) == ("", {})
