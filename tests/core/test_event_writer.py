"""The field-by-field writer against the general codec."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.codec import Framing, decode, encode
from schemas.event_json import event_from_document
from schemas.event_writer import write_long, writer
from tests.core.event_generator import avro_long

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
DOCUMENTS = st.fixed_dictionaries(
    {
        "event_id": st.text(max_size=20),
        "source": st.text(min_size=1, max_size=20),
        "local_timestamp": INT64,
        "kind": st.text(max_size=20),
    },
    optional={
        "value": st.one_of(st.none(), st.floats(), INT64, st.sampled_from(["NaN", "Infinity"])),
        "payload": st.one_of(st.none(), st.text(max_size=300), st.lists(st.integers(0, 9), max_size=3)),
        "hlc": st.one_of(st.none(), INT64),
        "causes": st.lists(st.fixed_dictionaries({"partition": INT32, "sequence": INT64}), max_size=3),
        "exchange": st.one_of(
            st.none(),
            st.fixed_dictionaries(
                {"partition": INT32, "offset": INT64, "sent_us": INT64, "acked_us": INT64, "appended_ms": INT64}
            ),
        ),
    },
)


@pytest.mark.parametrize("framing", list(Framing))
@given(document=DOCUMENTS)
@example(document={"event_id": "", "source": "s", "local_timestamp": -(2**63), "kind": "", "value": math.nan})
def test_an_event_is_written_as_the_codec_writes_it(framing: Framing, document: dict[str, Any]) -> None:
    """Byte for byte, whatever the fields hold; and it reads back."""
    event = event_from_document(document)
    written = writer(framing)(event)
    assert written == encode("Event", event, framing)
    assert orjson.dumps(str(decode("Event", written, framing))) == orjson.dumps(str(event))


@given(value=INT64)
def test_a_long_is_zigzag_and_seven_bits_a_byte(value: int) -> None:
    """As the generator of test events has it."""
    assert write_long(value) == avro_long(value)
