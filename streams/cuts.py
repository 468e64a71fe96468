"""Cuts of a ledger: what is gone from its beginning, and what of it is still needed.

Problem: GENESIS is the first entry, and says of which input and with which counts a partition was begun; the first
DEFINITION says how its events lie. A cut takes both, so the CUT entry says them again. It stands at what was the end of
the ledger, far from its beginning; so the job that cuts notes it on the progress topic, too, once the entry is there.

GUARANTEE a ledger may begin at any entry up to a CUT's before_index, and nowhere else: records go from the beginning
alone, and a cut that was written may have been ended before anything was deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schemas.codec import Framing
from streams.control import decode_control, encode_control

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Of its record on the progress topic: CUT/PARTITION.
CUT_KEY: Final = "cut/"


class Cut(NamedTuple):
    """The fields of the record, but for those that it takes over from GENESIS.

    before_index: the first entry that stays; before_sequence: the first sequence that stays, or will come; chain_hash:
    of the last entry that goes; archives: files that were proved, with entries first_index to last_index, whose chain
    hashes have merkle_root; job: id of the run; genesis: what it said of input and counts; framing: of the first
    DEFINITION.
    """

    before_index: int
    before_sequence: int
    chain_hash: bytes
    archives: int
    first_index: int
    last_index: int
    merkle_root: bytes
    job: str
    genesis: Mapping[str, Any]
    framing: Framing

    def encode(self, actor: str, reason: str) -> bytes:
        """As a control record. Raises BadInputError."""
        body = {name: value for name, value in self._asdict().items() if name != "genesis"}
        begun = {name: self.genesis[name] for name in GENESIS_FIELDS}
        return encode_control("Cut", {**body, **begun, "framing": str(self.framing)}, actor, reason)


GENESIS_FIELDS: Final = ("topic", "topic_id", "partitions", "lanes", "base_offset")


def cut_in(kind: str, body: Mapping[str, Any]) -> Cut | None:
    """The cut that a control record tells of, None for another record. Raises ValueError for a framing there is not."""
    if kind != "Cut":
        return None
    own = {name: body[name] for name in Cut._fields if name not in ("genesis", "framing")}
    genesis = {name: body[name] for name in GENESIS_FIELDS}
    return Cut(genesis=genesis, framing=Framing(body["framing"]), **own)


def cut_of(value: bytes) -> Cut:
    """From the bytes of a control record. Raises DecodeError, or ValueError for another."""
    cut = cut_in(*decode_control(value))
    if cut is None:
        raise ValueError("it is no cut")
    return cut


def covers(cut: Cut | None, first_index: int) -> bool:
    """Whether a ledger may begin at that entry."""
    return first_index == 1 or (cut is not None and 1 < first_index <= cut.before_index)
