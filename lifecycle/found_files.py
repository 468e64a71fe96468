"""Which of the files that lie below a root are the archive, where no manifest says so.

Problem: a manifest that was lost is made again from what the files say of themselves. Among them may be what crashes
have left: the files that a joined one was made of, a copy in another tier, one that was never committed. So of each
partition those are chosen that go on from one another, hash by hash, and hold the most entries; of several ways to hold
these the one of the fewest files.

GUARANTEE what is chosen is one range of entries, without gap or overlap, behind what is committed already.
GUARANTEE a file that may be of a seal that was cut off is told from one that only a manifest that has lost something
does not name: a seal leaves a file of an hour, which goes on right behind what is committed or overlaps its
end, and the next ones make again what it has beyond that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lifecycle.manifest import End
from lifecycle.tiers import Grain, Tier
from schemas.errors import DriftledgerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lifecycle.archive_facts import Facts
    from lifecycle.layout import Place


class Found(NamedTuple):
    """A file. place: what its path says; facts: what its footer does, None where it is damaged, which detail tells."""

    path: str
    place: Place
    facts: Facts | None
    detail: str = ""


class UnchainedArchivesError(DriftledgerError):
    """Files that do not go on from the others, and that no seal that was cut off left. Attributes: paths, remedy."""

    remedy = (
        "Put the files between, or good copies of the damaged ones, in their places and run the job again; or move "
        "those that are named out of the root"
    )

    def __init__(self, files: Sequence[Found]) -> None:
        told = "; ".join(
            f"{file.path} (partition {file.place.partition}, entries {file.place.first_index} to "
            f"{file.place.last_index}{': ' + file.detail if file.detail else ''})"
            for file in files[:3]
        )
        more = f", and {len(files) - 3} more" if len(files) > 3 else ""  # noqa: PLR2004 - those that are told
        super().__init__(
            f"not in one range with the other files of the partition: {told}{more}. The manifest was not written, and "
            f"nothing removed. {self.remedy}"
        )
        self.paths = tuple(file.path for file in files)


def chosen(files: Iterable[Found], end: End | None) -> list[Found]:
    """Of the files of a partition those that are the archive, ascending, behind the end of what is committed."""
    sound = [(file, file.facts) for file in files if file.facts is not None]
    sound.sort(key=lambda each: (each[1].first_index, *_rank(each[0])))
    #: By where they end: entries and files (less is more) of the best way there, its last file and where that begins.
    ways: dict[End, tuple[tuple[int, int], Found, End]] = {}
    for file, facts in sound:
        before = End(facts.first_index - 1, facts.first_sequence - 1, facts.chain_before)
        after = End(facts.last_index, facts.last_sequence, facts.chain_after)
        if before in ways:
            (entries, count), _, _ = ways[before]
        elif end is None or before == end:
            entries, count = 0, 0
        else:
            continue
        worth = entries + facts.entries, count - 1
        if after not in ways or worth >= ways[after][0]:
            ways[after] = worth, file, before
    found: list[Found] = []
    at = max(ways, key=lambda place: (ways[place][0], place.index), default=None)
    while at in ways:
        _, file, at = ways[at]
        found.append(file)
    return found[::-1]


def unchained(files: Iterable[Found], taken: Sequence[Found], end: End | None, ledger_begins: int) -> list[Found]:
    """The files of a partition that can neither be known nor be done without.

    That is those whose entries are neither among those taken, nor committed before, nor about to be sealed again. end:
    of what is committed; ledger_begins: the first index that the ledger still has.
    """
    last = taken[-1].place.last_index if taken else 0 if end is None else end.index
    first = 1 if end is not None else taken[0].place.first_index if taken else last + 1
    return [
        file
        for file in files
        if not (first <= file.place.first_index and file.place.last_index <= last)
        and not (is_of_seal(file.place, last) and ledger_begins <= _needed_of(file.place, first, last))
    ]


def is_of_seal(place: Place, end_index: int) -> bool:
    """Whether a seal that was cut off may have left it, where files end with that entry (0: there are none).

    It may begin before the end: the hour was then sealed shorter since, by a machine whose hot store was older.
    """
    return place.grain is Grain.HOURLY and place.first_index <= end_index + 1 <= place.last_index


def _needed_of(place: Place, first: int, last: int) -> int:
    """The first entry of a file that is in none of others, which hold all from `first` to `last`, and end before it."""
    return place.first_index if place.first_index < first else last + 1


def _rank(file: Found) -> tuple[int, int, str]:
    """Of copies the last one is taken: in the farther tier, of the longer period."""
    return list(Tier).index(file.place.tier), list(Grain).index(file.place.grain), file.path
