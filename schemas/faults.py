"""What can be wrong with a value, and the limits it must keep.

One closed list for all readers: the column kernels, the general path through fastavro, and JSON. A dead letter carries
the name of its fault, so names and numbers are part of the format and are only ever added to.

Precedence, the same for every reader: what the entry itself says (CONTROL_ENTRY, NULL_VALUE, OMITTED, ERASED, EMPTY),
then the framing (UNKNOWN_FRAMING, TRUNCATED within the ten bytes of the prefix, WRONG_FINGERPRINT), then the first
fault met when the body is read from its first byte to its last, TRAILING_BYTES at the end. Of one length-prefixed field
the order is: the varint (TRUNCATED, BAD_VARINT), a negative length (BAD_LENGTH), the limit (LIMIT_EXCEEDED or
SOURCE_LENGTH), the bytes that are not there (TRUNCATED), their spelling (BAD_UTF8). In JSON it is BAD_UTF8 and BAD_JSON
for the document as a whole, then the members in the order of the fields of Event.
"""

from __future__ import annotations

import enum

from .errors import BadInputError

#: The id is kept in a dead letter, a log line and a key of a page; a UUID needs 36 bytes, a URI rarely more than this.
MAX_EVENT_ID_BYTES = 1024
#: A source is the key of the input and of every per-source table; tables reserve this much for a name.
MAX_SOURCE_BYTES = 256
#: The name of a stream: a topic name of Kafka has at most 249 bytes.
MAX_KIND_BYTES = 256
#: A vector clock over every partition of a large topic; beyond it an event is a list of events.
MAX_CAUSES = 1024


class Fault(enum.IntEnum):
    """Why a value could not be read; NONE when it could."""

    NONE = 0
    #: Not a fault: a CONTROL entry holds no event.
    CONTROL_ENTRY = 1
    NULL_VALUE = 2
    #: A value of no bytes.
    EMPTY = 3
    #: Does not begin with the marker of the configured framing.
    UNKNOWN_FRAMING = 4
    #: Framed as expected, but written with another schema.
    WRONG_FINGERPRINT = 5
    #: Ends before the record does.
    TRUNCATED = 6
    #: Goes on after the record.
    TRAILING_BYTES = 7
    #: A number of more than its 64 bits (32 for an int).
    BAD_VARINT = 8
    #: A negative length, or an array block whose size in bytes is not the one it states.
    BAD_LENGTH = 9
    #: A branch of a union, or a symbol of an enum, that does not exist.
    BAD_UNION = 10
    BAD_UTF8 = 11
    #: Longer, or more items, than this module allows.
    LIMIT_EXCEEDED = 12
    #: A source of no bytes or of more than MAX_SOURCE_BYTES.
    SOURCE_LENGTH = 13
    #: Not JSON, or not an event in JSON.
    BAD_JSON = 14
    #: The value was over max_value_bytes and stayed in the input.
    OMITTED = 15
    #: The value was erased from the ledger.
    ERASED = 16


class DecodeError(BadInputError):
    """A value is not a record of the schema it should be.

    Attributes: record (name of the expected record), fault, detail (what was found and where).
    """

    def __init__(self, record: str, fault: Fault, detail: str) -> None:
        super().__init__(f"not a valid {record}, {fault.name}: {detail}")
        self.record = record
        self.fault = fault
        self.detail = detail
