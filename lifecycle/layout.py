"""Where the files of an archive lie below its root: the only paths that are ever written, read or removed there.

    {tier}/{grain}/{period}/data/p00003-000000000000000001-000000000002000000-1f3a9c0e5b7d2846.parquet
    {tier}/{grain}/{period}/indices/p00003-000000000000000001-000000000002000000-1f3a9c0e5b7d2846.index
    {tier}/fresh/{anything}          files on their way: of the tier, because a tier may be a disk of its own
    configuration/                   rules; no job touches it

tier: recent, historical or deep; what is live is in no file. The name of an archive is that of `archive_facts`.

GUARANTEE a path that `place_in` takes has no part that a file system reads as another place: no root, no "..", no empty
part, no separator but "/"; and it is the only spelling of its place.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from lifecycle.tiers import Grain, Tier, is_period

DATA: Final = "data"
INDICES: Final = "indices"
FRESH: Final = "fresh"
#: Those that have files.
FILED: Final = (Tier.RECENT, Tier.HISTORICAL, Tier.DEEP)

_ARCHIVE: Final = ".parquet"
_INDEX: Final = ".index"
_NAME: Final = re.compile(r"p([0-9]{5,9})-([0-9]{18,19})-([0-9]{18,19})-([0-9a-f]{16})\.parquet")
_PARTS: Final = 5
_FRESH_PARTS: Final = 3
_GRAINS: Final = frozenset(Grain)


class Place(NamedTuple):
    """What a path says. name: of the file; the range of entries is the name's."""

    tier: Tier
    grain: Grain
    period: str
    name: str
    partition: int
    first_index: int
    last_index: int


def path_of(tier: Tier, grain: Grain, period: str, name: str) -> str:
    """The path of an archive. Raises ValueError for a place that there is not."""
    path = f"{tier}/{grain}/{period}/{DATA}/{name}"
    place_in(path)
    return path


def index_of(path: str) -> str:
    """The path of the index of an archive. Raises ValueError as `place_in`."""
    place = place_in(path)
    return f"{place.tier}/{place.grain}/{place.period}/{INDICES}/{place.name.removesuffix(_ARCHIVE)}{_INDEX}"


def place_in(path: str) -> Place:
    """What the path of an archive says. Raises ValueError for one that is none."""
    parts = path.split("/")
    named = _NAME.fullmatch(parts[-1])
    if len(parts) == _PARTS and named is not None and parts[0] in FILED and parts[1] in _GRAINS and parts[3] == DATA:
        tier, grain, period = Tier(parts[0]), Grain(parts[1]), parts[2]
        partition, first, last = (int(number) for number in named.group(1, 2, 3))
        shown = f"p{partition:05d}-{first:018d}-{last:018d}-{named[4]}{_ARCHIVE}"
        if is_period(period, grain) and shown == parts[-1]:
            return Place(tier, grain, period, shown, partition, first, last)
    raise ValueError(f"{path!r:.200} is no path of an archive")


def place_of(path: str) -> Place:
    """What the path of an archive, or of its index, says. Raises ValueError for any other."""
    parts = path.split("/")
    if len(parts) == _PARTS and parts[3] == INDICES and parts[4].endswith(_INDEX):
        path = "/".join((*parts[:3], DATA, parts[4].removesuffix(_INDEX) + _ARCHIVE))
    return place_in(path)


def is_fresh(path: str) -> bool:
    """Whether it is that of a file on its way."""
    parts = path.split("/")
    return len(parts) == _FRESH_PARTS and parts[1] == FRESH


def parts_of(path: str) -> tuple[str, ...]:
    """The parts of a path of an archive or of an index. Raises ValueError for any other."""
    parts = tuple(path.split("/"))
    if len(parts) == _PARTS and parts[3] == INDICES and parts[4].endswith(_INDEX):
        archive = "/".join((*parts[:3], DATA, parts[4].removesuffix(_INDEX) + _ARCHIVE))
        if index_of(archive) == path:
            return parts
    place_in(path)
    return parts


def parts_of_any(path: str) -> tuple[str, ...]:
    """The parts of the path of a file, of whatever name, in a folder of ours. Raises ValueError for any other."""
    parts = tuple(path.split("/"))
    if parts[0] in FILED and parts[-1] not in ("", ".", "..") and "\0" not in parts[-1]:
        if len(parts) == _FRESH_PARTS and parts[1] == FRESH:
            return parts
        if len(parts) == _PARTS and parts[1] in _GRAINS and parts[3] in (DATA, INDICES):  # noqa: SIM102 - a line each
            if is_period(parts[2], Grain(parts[1])):
                return parts
    raise ValueError(f"{path!r:.200} is no path of a file of the archive")
