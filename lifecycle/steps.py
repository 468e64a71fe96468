"""What plans are made of: what is known of hours, files and the ledger, and the steps that jobs are to do."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from lifecycle.tiers import MS_PER_HOUR, Grain, Tier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lifecycle.manifest import Segment, Tree


class Job(enum.StrEnum):
    """In the order in which they may run."""

    SEAL = "seal"
    COMPACT = "compact"
    DEMOTE = "demote"
    PROMOTE = "promote"
    PRUNE = "prune"
    CUT = "cut"
    VERIFY = "verify"
    #: When it is asked for: no rule makes it due.
    REINDEX = "reindex"
    RESTORE = "restore"


class HotHour(NamedTuple):
    """An hour of a partition, as the hot tier knows it; where more came to it after it was archived, that is another.

    An hour without DATA has a last_sequence before its first.
    held: whether any of its rows are in the hot tier; if not, it is read from archives. end_ms: of the hour, by
    authority time. heat: as `ageing` has it of what was written at end_ms. moved_us: when it came, or left. in_part:
    some of its rows are in the hot tier, and others away, as where its return was cut off.
    """

    partition: int
    period: str
    first_sequence: int
    last_sequence: int
    first_index: int
    last_index: int
    rows: int
    size_bytes: int
    held: bool
    end_ms: int
    heat: float
    moved_us: int
    in_part: bool = False

    @property
    def first_ms(self) -> int:
        """First of the hour, by authority time."""
        return self.end_ms - MS_PER_HOUR

    @property
    def last_ms(self) -> int:
        """Where it ends."""
        return self.end_ms


class Ledger(NamedTuple):
    """What of a partition's ledger is there.

    oldest_needed_index: the first entry that the oldest snapshot in use needs, or who else reads; one behind last_index
    where nobody does. pruned_index: of the last entry that prunes have dropped from the archives, with all from
    first_index on; 0 for none.
    """

    first_index: int
    last_index: int
    oldest_needed_index: int
    pruned_index: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """All that is committed. By partition: hours, ascending, and ledgers. proofs: when a file was last proved, by path.

    A partition without a ledger here is neither sealed nor cut. A path that could not be proved has no proof any more.
    """

    tree: Tree
    hours: Mapping[int, Sequence[HotHour]] = field(default_factory=dict)
    ledgers: Mapping[int, Ledger] = field(default_factory=dict)
    proofs: Mapping[str, int] = field(default_factory=dict)


class Step(NamedTuple):
    """One thing to do, done or not done as a whole.

    period, tier, grain: of the hour or file that there is afterwards, or that there was; grain is None for a cut.
    paths: files of the tree that it takes: all but those of a verify are gone afterwards. first_index, last_index,
    rows, size_bytes: of what it is about; rows and size_bytes of a cut are those of archives that lie in it as a whole.
    reads: that count (`ageing.reads`) of what is read from a slower place afterwards, or from none.
    """

    job: Job
    partition: int
    period: str
    tier: Tier
    grain: Grain | None
    paths: tuple[str, ...]
    first_index: int
    last_index: int
    rows: int
    size_bytes: int
    reads: float
    why: str

    @property
    def what(self) -> str:
        """In a few words."""
        match self.job:
            case Job.SEAL:
                text = f"archive the hour {self.period}"
            case Job.COMPACT if len(self.paths) > 1:
                text = f"join {len(self.paths)} files to one of {self.period}"
            case Job.COMPACT | Job.RESTORE:
                text = f"make {'one file that' if self.job is Job.COMPACT else 'again the file'} of {self.period}"
            case Job.DEMOTE if self.paths:
                text = f"move the file of {self.period} to {self.tier}"
            case Job.DEMOTE:
                text = f"drop the hour {self.period} from the hot tier"
            case Job.PROMOTE:
                text = f"bring the hour {self.period} back to the hot tier"
            case Job.PRUNE:
                text = f"delete the file of {self.period}"
            case Job.CUT:
                text = f"cut the ledger before entry {self.last_index + 1}"
            case Job.VERIFY | Job.REINDEX:
                text = f"prove the file of {self.period}"
        return text

    @property
    def entries(self) -> int:
        """How many it is about."""
        return self.last_index - self.first_index + 1


def of_hour(job: Job, hour: HotHour, tier: Tier, reads: float, why: str) -> Step:
    """A step about an hour, whose rows are in that tier afterwards."""
    indexes = hour.first_index, hour.last_index
    return Step(
        job, hour.partition, hour.period, tier, Grain.HOURLY, (), *indexes, hour.rows, hour.size_bytes, reads, why
    )


def of_files(job: Job, files: Sequence[Segment], why: str, reads: float = 0.0) -> Step:
    """A step about neighbouring files; tier, grain and period are those of the first."""
    first, last = files[0], files[-1]
    return Step(
        job,
        first.facts.partition,
        first.period,
        first.tier,
        first.grain,
        tuple(file.path for file in files),
        first.facts.first_index,
        last.facts.last_index,
        last.facts.last_sequence - first.facts.first_sequence + 1,
        sum(file.size_bytes for file in files),
        reads,
        why,
    )
