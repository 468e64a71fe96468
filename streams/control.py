"""Control records as bytes: what is written to the control topic and carried by CONTROL entries.

One codec for all of them: who writes one encodes it here, who meets one in a topic or an entry reads it here. There is
a heartbeat a second and partition for ever, so whoever has no use for them asks `is_heartbeat` before decoding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schemas.canonical import EntryKind
from schemas.codec import DecodeError, decode, encode
from schemas.memory import bytes_at

if TYPE_CHECKING:
    from schemas.columns import Entries

#: Where the kind of a control record stands: after the ten bytes of the framing's prefix.
_KIND_AT: Final = 10
#: A plain number: comparing an array with a member of an enum takes longer than the comparison.
_CONTROL: Final = int(EntryKind.CONTROL)


def encode_control(kind: str, body: dict[str, Any], actor: str, reason: str) -> bytes:
    """A control record. kind: the name of the body's record in schemas/control.v1.avsc. Raises BadInputError."""
    return encode("Control", {"body": (kind, body), "actor": actor, "reason": reason})


def decode_control(value: bytes) -> tuple[str, dict[str, Any]]:
    """Kind and body of a control record. Raises DecodeError for what is none."""
    kind, body = decode("Control", value)["body"]
    return kind, body


class Said(NamedTuple):
    """A control record, with who caused it and why."""

    kind: str
    body: dict[str, Any]
    actor: str
    reason: str


def decode_said(value: bytes) -> Said:
    """All of a control record. Raises DecodeError for what is none."""
    record = decode("Control", value)
    kind, body = record["body"]
    return Said(kind, body, record["actor"], record["reason"])


def read_control(value: bytes | None) -> tuple[str, dict[str, Any]]:
    """Kind and body of a control record; ("", {}) for what is none: it is sequenced, and means nothing."""
    try:
        return decode_control(value or b"")
    except DecodeError:
        return "", {}


_HEARTBEAT: Final = encode_control(
    "Heartbeat", {"predecessor_appended_ms": None, "input_end_offset": 0, "worker_us": 0}, "", ""
)[_KIND_AT]
#: The branch of the body that it is.
HEARTBEAT_BRANCH: Final = _HEARTBEAT >> 1
_LOCK: Final = encode_control(
    "Lock", {"engaged": False, "scope": None, "halts": [], "source": "", "client_timestamp": 0}, "", ""
)[_KIND_AT]
#: The branch of a Cut as a long of one byte.
_CUT: Final = 7 << 1


class RoundTrip(NamedTuple):
    """Of a heartbeat: when the broker appended it, and when its worker knew, by its own clock."""

    appended_ms: int
    acked_us: int


def is_heartbeat(value: bytes) -> bool:
    """Whether a control record is a heartbeat, told by one byte; what is no control record may pass for one."""
    return len(value) > _KIND_AT and value[_KIND_AT] == _HEARTBEAT


def is_lock(value: bytes) -> bool:
    """Whether a control record engages or releases a lock, told as `is_heartbeat` does."""
    return len(value) > _KIND_AT and value[_KIND_AT] == _LOCK


def is_cut(value: bytes) -> bool:
    """Whether a control record tells of a cut, told as `is_heartbeat` does."""
    return len(value) > _KIND_AT and value[_KIND_AT] == _CUT


def control_values(entries: Entries, start: int = 0) -> list[tuple[int, bytes]]:
    """The CONTROL rows from one on that have a value, and the value of each; as a rule there is none."""
    rows = (entries.kind[start:] == _CONTROL).nonzero()[0].tolist()
    places = [(start + row, int(entries.value_address[start + row])) for row in rows]
    return [(row, bytes_at(address, int(entries.value_length[row]))) for row, address in places if address]
