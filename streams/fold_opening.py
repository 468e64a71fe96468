"""What a lane checks and says when it opens its folds.

Progress and snapshots must not contradict one another, and what the deployment wants defined must stand in the ledger.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.errors import BadInputError, HaltCode, HaltError
from streams.control import decode_said, encode_control, read_control
from streams.definitions import JUDGE
from streams.fold import FoldError
from streams.fold_progress import NO_PROGRESS
from streams.locks import change_of, keeps_input, lock_of
from streams.log import offset_of
from streams.windows import WITHDRAWN, entry_name, window_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from confluent_kafka import Message

    from streams.control import Said
    from streams.fold_progress import Standing
    from streams.folds import Configured, Folds, States
    from streams.snapshots import Packed

_PROGRESS_LOST_REMEDY = (
    "The progress topic lost records, so outputs would be written twice: restore it, or begin a new ledger under "
    "another name"
)


class Told(NamedTuple):
    """A control record that says something of a fold."""

    kind: str
    body: dict[str, Any]
    reason: str

    @property
    def about(self) -> tuple[str, str]:
        """What a later record of the same kind would replace."""
        return self.kind, self.body["fold" if self.kind == "FoldVersion" else "name"]

    def encode(self, actor: str) -> bytes:
        """As a control record."""
        return encode_control(self.kind, self.body, actor, self.reason)


def fold_failed(partition: int, error: FoldError) -> HaltError:
    """The halt of a partition whose folds must not go on."""
    remedy = "If it names a release run that, else see `driftledger sequence check`; then `driftledger halts lift`"
    return HaltError(partition, HaltCode.FOLD_FAILED, str(error), remedy)


def check_progress(
    folds: Folds, standing: Standing, where: str, partition: int, tail_index: int, snapshots: Iterable[Packed]
) -> None:
    """Raise HaltError where progress was lost, or a newer release wrote on. tail_index: 0 for an empty ledger."""
    judge = folds.judge.name
    if tail_index and standing.of(judge) is NO_PROGRESS:
        detail = f"{where} says nothing of a ledger of {tail_index} entries"
        raise HaltError(partition, HaltCode.PROGRESS_LOST, detail, _PROGRESS_LOST_REMEDY)
    for fold, version in folds.versions().items():
        progress = standing.of(fold)
        if progress.version > version:
            detail = (
                f"{where} says that {fold} {progress.version} wrote on, this is {fold} {version}. Run a release that "
                f"has {fold} {progress.version}"
            )
            raise fold_failed(partition, FoldError(detail))
        done = progress.done(partition, tail_index)
        for packed in snapshots:
            if (packed.fold, packed.partition) == (fold, partition) and packed.index > done and packed.is_whole():
                detail = f"{where} says {done}, a snapshot of {fold} stands at index {packed.index}"
                raise HaltError(partition, HaltCode.PROGRESS_LOST, detail, _PROGRESS_LOST_REMEDY)


class Coming(NamedTuple):
    """What control records that wait for their turn will say of folds: the last body on each subject.

    locks: those that engage or release one, in order. end: offset of the last of all these, -1 for none.
    """

    bodies: dict[tuple[str, str], dict[str, Any]]
    locks: list[Said]
    end: int

    def locked(self, states: States) -> bool:
        """Whether a lock will keep the input back once they are in the ledger."""
        locks = dict(states.judge.locks)
        for said in self.locks:
            with suppress(BadInputError):
                change_of(locks, lock_of(states.judge.partition, 0, 0, said), engaged=said.body["engaged"])
        return keeps_input(locks)


def coming_of(waiting: Iterable[Message]) -> Coming:
    """Read it off the records."""
    bodies: dict[tuple[str, str], dict[str, Any]] = {}
    locks: list[Said] = []
    end = -1
    for message in waiting:
        value = message.value()
        kind, body = read_control(value)
        if kind in ("Definition", "FoldVersion"):
            bodies[Told(kind, body, "").about] = body
        elif kind == "Lock" and value is not None:
            locks.append(decode_said(value))
        else:
            continue
        end = offset_of(message)
    return Coming(bodies, locks, end)


def untold(states: States, configured: Configured, coming: Coming, *, begins: bool) -> list[Told]:
    """What a partition's ledger must be told, in order, beside what is coming: versions, then definitions.

    begins: the ledger is empty; it is told of judge even where the defaults are wanted.
    """
    folds = configured.folds
    written_by = {folds.judge.name: states.judge.written_by, folds.derive.name: states.derive.written_by}
    written_by |= {body["fold"]: body["version"] for (kind, _), body in coming.bodies.items() if kind == "FoldVersion"}
    newer = {fold: version for fold, version in folds.versions().items() if version > written_by[fold]}

    stands = {} if begins else {JUDGE: states.judge.settings.canonical()}
    stands |= {entry_name(name): body for name, body in states.derive.in_force().items()}
    stands |= {body["name"]: body["body"] for (kind, _), body in coming.bodies.items() if kind == "Definition"}
    windows = {entry_name(window.name): window.canonical() for window in configured.windows}
    unwanted = [name for name in stands if window_name(name) is not None and name not in windows]
    wanted = {JUDGE: configured.judge.canonical(), **dict.fromkeys(unwanted, WITHDRAWN), **windows}
    return [
        *(Told("FoldVersion", {"fold": f, "version": v}, "a new version of the fold") for f, v in newer.items()),
        *(
            Told("Definition", {"name": name, "body": body}, "settings of the worker")
            for name, body in wanted.items()
            if stands.get(name) != body
        ),
    ]
