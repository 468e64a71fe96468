"""Locks: what a person, or the guardian, has stopped, as a function of the ledger's entries.

Problem: when a clock or a partition is not to be trusted, somebody must be able to say stop, and it must be known later
who did, why, and how far his own clock was off. So a lock is a CONTROL entry that is a verification as well: LOCK says
what is locked, what that halts, and an instant of the clock of who locks, whose delta to the entry's authority time is
the verification. A release is an entry of the same kind.

    scope       None: the partition. Else a source in it
    halts       "sequence": the lane takes no more input of the partition; "put": nothing is put or published there,
                and no window resumed. What the one who engaged it had in force, so everybody agrees on it

Engaging what is engaged, and releasing what is not, changes nothing; the entries stand all the same.

GUARANTEE at most LOCKS_MAX sources of a partition are locked, each in bounded memory; for the partition itself there is
always room. An entry that would be one more, whose scope could be no source, or that would halt nothing, is refused: it
changes nothing, and is counted.
HAZARD what is locked here alone is not safe from who writes to the input's topic by himself: Kafka knows of no lock.
"""

from __future__ import annotations

import enum
from shlex import quote
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schemas.codec import encode
from schemas.errors import BadInputError
from schemas.faults import MAX_SOURCE_BYTES
from schemas.instants import format_ms
from streams.severity import Severity
from streams.severity_kernel import delta_ms_of, severity_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from streams.control import Said

#: Locked sources of a partition: more than some hundred are a partition that should be locked whole.
LOCKS_MAX: Final = 1_000
#: Characters of who and why that are kept; the entry has all of them.
ACTOR_CHARACTERS: Final = 256
REASON_CHARACTERS: Final = 1_024
#: What the guardian signs its locks with.
GUARDIAN: Final = "guardian"


class Halts(enum.StrEnum):
    """What a lock halts."""

    SEQUENCE = "sequence"
    PUT = "put"


class Lock(NamedTuple):
    """One that is engaged. index, authority_ms: of its entry; delta_ms: what the verification found."""

    partition: int
    scope: str | None
    halts: tuple[str, ...]
    index: int  # type: ignore[assignment] # hides tuple.index, which nobody asks a lock for
    authority_ms: int
    delta_ms: int
    actor: str
    reason: str

    @property
    def what(self) -> str:
        """In words."""
        return f"partition {self.partition}" if self.scope is None else f"source {self.scope}"

    @property
    def since(self) -> str:
        """When, by whom and why, in words."""
        return f"locked since {format_ms(self.authority_ms)} by {self.actor} because {self.reason}"

    @property
    def remedy(self) -> str:
        """What to do, in words."""
        scope = f"--partition {self.partition}" if self.scope is None else f"--source {quote(self.scope)}"
        return f"Once that is mended, run `driftledger lock release {scope} --reason TEXT`"

    @property
    def severity(self) -> Severity:
        """Of the verification."""
        return Severity(severity_of(self.delta_ms))

    def does(self, what: Halts) -> bool:
        """Whether it halts that; a source is kept from puts alone."""
        return what in self.halts and (what is Halts.PUT or self.scope is None)

    def row(self) -> dict[str, Any]:
        """For a listing."""
        return {
            "partition": self.partition,
            "source": self.scope,
            "halts": ",".join(self.halts),
            "since": format_ms(self.authority_ms),
            "since_ms": self.authority_ms,
            "actor": self.actor,
            "reason": self.reason,
            "delta_ms": self.delta_ms,
            "severity": self.severity.name,
            "id": f"{self.partition}:{self.index}",
        }


class LockChange(NamedTuple):
    """What an entry changed. lock: None for a release."""

    partition: int
    scope: str | None
    lock: Lock | None


#: Locks of a partition by scope.
Locks = dict[str | None, Lock]


def sources_locked(locks: Collection[str | None]) -> int:
    """How many of these scopes are sources."""
    return len(locks) - (None in locks)


def keeps_input(locks: Locks) -> bool:
    """Whether the lock of the partition keeps its input back."""
    lock = locks.get(None)
    return lock is not None and lock.does(Halts.SEQUENCE)


def halts_in(setting: str) -> tuple[str, ...]:
    """What the setting lock_halts names, in order."""
    return tuple(str(halts) for halts in Halts if halts in setting.split(","))


def lock_body(
    scope: str | None, halts: Sequence[str], source: str, asserted_us: int, *, engaged: bool
) -> dict[str, Any]:
    """Of a LOCK record. asserted_us: of the clock of `source`, now."""
    return {
        "engaged": engaged,
        "scope": scope,
        "halts": list(halts) if engaged else [],
        "source": source,
        "client_timestamp": asserted_us,
    }


def lock_of(partition: int, index: int, authority_ms: int, said: Said) -> Lock:
    """The lock that a LOCK entry asks for."""
    body = said.body
    known = tuple(str(halts) for halts in Halts if halts in body["halts"])
    delta_ms = int(delta_ms_of(body["client_timestamp"], authority_ms))
    actor, reason = said.actor[:ACTOR_CHARACTERS], said.reason[:REASON_CHARACTERS]
    return Lock(partition, body["scope"], known, index, authority_ms, delta_ms, actor, reason)


def change_of(locks: Locks, asked: Lock, *, engaged: bool) -> LockChange | None:
    """What a LOCK entry changes, None for nothing; `locks` is changed. Raises BadInputError where it is refused."""
    scope = asked.scope
    if scope is not None and not 1 <= len(scope.encode()) <= MAX_SOURCE_BYTES:
        raise BadInputError(f"a source has 1 to {MAX_SOURCE_BYTES} bytes of UTF-8. Name one that could be one")
    if engaged:
        if not any(asked.does(what) for what in Halts):
            raise BadInputError("it would halt nothing. Name what it halts: sequence, put; of a source put alone")
        if scope in locks:
            return None
        if scope is not None and sources_locked(locks) >= LOCKS_MAX:
            raise BadInputError(f"{LOCKS_MAX} sources of the partition are locked already. Lock the partition itself")
        locks[scope] = asked
        return LockChange(asked.partition, scope, asked)
    return None if locks.pop(scope, None) is None else LockChange(asked.partition, scope, None)


def key_of(partition: int, scope: str | None) -> bytes:
    """Of its record on the progress topic."""
    return f"lock/{partition}".encode() if scope is None else f"lock/{partition}/{scope}".encode()


def message_of(change: LockChange) -> tuple[bytes, bytes | None]:
    """Key and value of the record that tells of a change."""
    lock = change.lock
    return key_of(change.partition, change.scope), None if lock is None else encode("Lock", fields_of(lock))


def fields_of(lock: Lock) -> dict[str, Any]:
    """As in the schema."""
    return {
        "partition": lock.partition,
        "scope": lock.scope,
        "halts": list(lock.halts),
        "index": lock.index,
        "authority_timestamp": lock.authority_ms,
        "delta_ms": lock.delta_ms,
        "actor": lock.actor,
        "reason": lock.reason,
    }


def lock_from(fields: dict[str, Any]) -> Lock:
    """From the fields of the schema."""
    return Lock(
        fields["partition"], fields["scope"], tuple(fields["halts"]), fields["index"], fields["authority_timestamp"],
        fields["delta_ms"], fields["actor"], fields["reason"],
    )  # fmt: skip
