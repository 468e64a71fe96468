"""The manifest: which files are the archives, as a log whose records are the commits of every move.

Problem: files are moved, joined and removed by jobs that may die at any instruction, on file systems that have no
transactions. So nothing is true because a file is there. A job writes what is new, under names that nothing has yet,
and has it on disk; then one record in this log says in one breath what is there now and what is not any more; then what
is not is deleted. Whoever replays the log has the tree, and whoever finds a file that is not in it may delete it.

    commit      contiguous from 1 over the log; written by whoever holds the lease (the transactional id)
    adds        files that are there from here on
    drops       paths that are not

GUARANTEE `Tree.after` takes only commits that lose and double no entry: what a partition's files hold is one range of
indexes without gap or overlap, whose chain goes on from file to file; it grows at its end, is cut only at its beginning
and there only by a prune, and what is joined or moved has the same ends as before, chain hashes included. Where all of
it is cut, what comes next still goes on where it ended.
GUARANTEE `decode` takes one JSON object with exactly the fields of a Commit, of their types and within their limits;
every path of it is one of `layout`. Anything else is a ManifestError that names the commit, as far as that can be read.
"""

from __future__ import annotations

import bisect
import enum
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_type_hints

from lifecycle.archive_facts import Facts
from lifecycle.layout import path_of, place_in
from lifecycle.tiers import Grain, Tier
from schemas.errors import DriftledgerError
from schemas.instants import INT64_MAX, INT64_MIN
from schemas.topics import COMMIT_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

#: Of a job's id.
_JOB_CHARACTERS_MAX: Final = 200
_HASH: Final = re.compile(r"[0-9a-f]{64}")


class ManifestError(DriftledgerError):
    """A record that the manifest cannot hold: it is damaged, or another writer was there."""


class Move(enum.StrEnum):
    """Why a commit was made."""

    #: From the hot tier to an archive: only adds.
    SEAL = "seal"
    #: Files joined to one of a longer period.
    COMPACT = "compact"
    #: The same file in the place of a tier that is farther.
    DEMOTE = "demote"
    #: ... that is nearer.
    PROMOTE = "promote"
    #: Files made again from the ledger, in place of damaged ones.
    RESTORE = "restore"
    #: Files beyond what is kept: only drops, from the beginning.
    PRUNE = "prune"


class Segment(NamedTuple):
    """A file of the tree. path: below the root, with slashes; moved_us: when it came to be there.

    sha256: of the whole file; index_sha256: of its index. spans: least and greatest of its rows, by name, least
    above greatest where no row has one. size_bytes: of both.
    """

    path: str
    tier: Tier
    grain: Grain
    period: str
    size_bytes: int
    sha256: str
    index_sha256: str
    spans: dict[str, tuple[int, int]]
    moved_us: int
    facts: Facts


class Commit(NamedTuple):
    """One record. job: the id of the run that made it."""

    commit: int
    move: Move
    job: str
    partition: int
    at_us: int
    adds: tuple[Segment, ...]
    drops: tuple[str, ...]


class End(NamedTuple):
    """The last entry of a partition that ever was in a file: what comes next goes on behind it."""

    index: int  # type: ignore[assignment] # hides tuple.index, which nobody asks an end for
    sequence: int
    chain: str


@dataclass(frozen=True, slots=True)
class Tree:
    """The files after a commit: by partition, ascending by index. ends: of each partition that had one.

    begins: the first index that ever was in a file. What no file has from there on was pruned; what is before no commit
    speaks of.
    """

    commit: int = 0
    parts: Mapping[int, tuple[Segment, ...]] = field(default_factory=dict)
    ends: Mapping[int, End] = field(default_factory=dict)
    begins: Mapping[int, int] = field(default_factory=dict)

    def after(self, record: Commit) -> Tree:
        """The tree after one more. Raises ManifestError for one that does not follow, loses or doubles entries."""
        if record.commit != self.commit + 1:
            raise ManifestError(f"commit {record.commit} does not follow {self.commit}")
        for segment in record.adds:
            _check_segment(record, segment)
        before = self.parts.get(record.partition, ())
        places = _places(record, before)
        after = _without(before, places)
        for segment in record.adds:
            bisect.insort(after, segment, key=_first_index)
        dropped = [before[place] for place in places]
        for segment in (*record.adds, *dropped):
            place = bisect.bisect_left(after, _first_index(segment), key=_first_index)
            for behind in (place, place + 1):
                if 0 < behind < len(after):
                    _check_joined(record, _end_of(after[behind - 1]), after[behind], after[behind - 1].path)
        _check_move(record, before, after, dropped)
        end = self.ends.get(record.partition)
        if not before and end is not None:
            _check_joined(record, end, after[0], f"entry {end.index}")
        ends = {record.partition: _end_of(after[-1])} if after else {}
        begins = {record.partition: _first_index(after[0])} if after else {}
        parts = {**self.parts, record.partition: tuple(after)}
        return Tree(record.commit, parts, {**self.ends, **ends}, {**begins, **self.begins})

    def segments(self) -> Iterator[Segment]:
        """All files, by partition and index."""
        for partition in sorted(self.parts):
            yield from self.parts[partition]

    def paths(self) -> set[str]:
        """Of all files."""
        return {segment.path for segment in self.segments()}

    def at_index(self, partition: int, index: int) -> Segment | None:
        """The file that holds an entry."""
        segments = self.parts.get(partition, ())
        place = bisect.bisect_right(segments, index, key=_first_index) - 1
        if place < 0 or segments[place].facts.last_index < index:
            return None
        return segments[place]

    def pruned_index(self, partition: int, first_index: int) -> int:
        """Of the last entry that prunes have dropped, with all from that one on; 0 for none, or not with all.

        A manifest that was made again from files knows of none that was before.
        """
        begin = self.begins.get(partition)
        if begin is None or begin > first_index:
            return 0
        files = self.parts.get(partition, ())
        next_index = files[0].facts.first_index if files else self.ends[partition].index + 1
        return next_index - 1 if next_index > begin else 0

    def end(self, partition: int) -> Segment | None:
        """The last file of a partition."""
        segments = self.parts.get(partition, ())
        return segments[-1] if segments else None


def encode(record: Commit) -> bytes:
    """As it stands in the topic: one JSON object. Raises ManifestError for one that `decode` would not take."""
    document = record._asdict()
    document["adds"] = [{**segment._asdict(), "facts": segment.facts._asdict()} for segment in record.adds]
    try:
        content = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    except ValueError as error:  # half a pair of surrogates
        raise ManifestError(f"commit {record.commit} is no text: {error}") from error
    decode(content)
    return content


def decode(content: bytes) -> Commit:
    """A record of the topic. Raises ManifestError."""
    if len(content) > COMMIT_BYTES_MAX:
        raise ManifestError(f"a commit of {len(content):,} bytes is longer than {COMMIT_BYTES_MAX:,}: make it of less")
    number: object = None
    try:
        document = json.loads(content, object_pairs_hook=_fields)
        number = document.get("commit") if isinstance(document, dict) else None
        return _commit(document)
    except (ValueError, RecursionError) as error:
        name = f"commit {number}" if isinstance(number, int) else "a record of the manifest"
        raise ManifestError(f"{name} is none: {error}") from error


# --------------------------------------------------------------------------------------------------------------- fields


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a field stands twice")
    return document


def _commit(document: object) -> Commit:
    fields = _exactly(document, Commit._fields)
    return Commit(
        _integer(fields, "commit", least=1),
        Move(_text(fields, "move")),
        _text(fields, "job"),
        _integer(fields, "partition", least=0),
        _integer(fields, "at_us"),
        tuple(_segment(each) for each in _list(fields, "adds")),
        tuple(_path(each) for each in _list(fields, "drops")),
    )


def _segment(document: object) -> Segment:
    fields = _exactly(document, Segment._fields)
    spans = fields["spans"]
    if not isinstance(spans, dict):
        raise ValueError("spans is no object")  # noqa: TRY004 - all that is wrong with a record is one error
    return Segment(
        _path(fields["path"]),
        Tier(_text(fields, "tier")),
        Grain(_text(fields, "grain")),
        _text(fields, "period"),
        _integer(fields, "size_bytes", least=0),
        _hash(fields, "sha256"),
        _hash(fields, "index_sha256"),
        {frame: _span(spans, frame) for frame in spans},
        _integer(fields, "moved_us"),
        _facts(fields["facts"]),
    )


def _facts(document: object) -> Facts:
    fields = _exactly(document, Facts._fields)
    found: dict[str, Any] = {
        name: _integer(fields, name) if kind is int else _hash(fields, name) if name in _HASHES else _text(fields, name)
        for name, kind in _FACTS.items()
        if name != "merkle"
    }
    return Facts(**found, merkle=tuple(_node(each) for each in _list(fields, "merkle")))


_FACTS: Final = get_type_hints(Facts)
_HASHES: Final = ("chain_before", "chain_after", "merkle_root")


def _node(node: object) -> tuple[int, str]:
    if not isinstance(node, list) or len(node) != 2:  # noqa: PLR2004 - level and hash
        raise ValueError(f"a node of the Merkle tree is {node!r:.80}")
    fields = {"level": node[0], "node": node[1]}
    return _integer(fields, "level", least=0), _hash(fields, "node")


def _exactly(document: object, names: Iterable[str]) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ValueError(f"{document!r:.80} is no object")  # noqa: TRY004 - as above
    if wrong := set(names) ^ document.keys():
        raise ValueError(f"fields that are missing or unknown: {', '.join(sorted(wrong)):.200}")
    return document


def _integer(fields: Mapping[str, Any], name: str, *, least: int = INT64_MIN) -> int:
    value = fields[name]
    if type(value) is not int or not least <= value <= INT64_MAX:
        raise ValueError(f"{name} is {value!r:.80}")
    return value


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str) or len(value) > _JOB_CHARACTERS_MAX:
        raise ValueError(f"{name} is {value!r:.80}")
    return value


def _hash(fields: Mapping[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise ValueError(f"{name} is {value!r:.80}: no SHA-256 in hexadecimal")
    return value


def _list(fields: Mapping[str, Any], name: str) -> list[Any]:
    value = fields[name]
    if not isinstance(value, list):
        raise ValueError(f"{name} is no list")  # noqa: TRY004 - as above
    return value


def _span(spans: Mapping[str, Any], frame: str) -> tuple[int, int]:
    value = spans[frame]
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 - least and greatest
        raise ValueError(f"the span of {frame:.80} is {value!r:.80}")
    ends = {"least": value[0], "greatest": value[1]}
    return _integer(ends, "least"), _integer(ends, "greatest")


def _path(path: object) -> str:
    """A path that stays below the root, whatever wrote it."""
    if not isinstance(path, str):
        raise ValueError(f"{path!r:.80} is no path of an archive")  # noqa: TRY004 - as above
    place_in(path)
    return path


# ---------------------------------------------------------------------------------------------------------------- rules


def _first_index(segment: Segment) -> int:
    return segment.facts.first_index


def _end_of(segment: Segment) -> End:
    facts = segment.facts
    return End(facts.last_index, facts.last_sequence, facts.chain_after)


def _check_segment(record: Commit, segment: Segment) -> None:
    """That what it says agrees with itself, with its path and with the commit."""
    facts = segment.facts
    try:
        place = place_in(segment.path)
        path = path_of(segment.tier, segment.grain, segment.period, place.name)
    except ValueError as error:
        raise ManifestError(f"commit {record.commit}: {error}") from error
    if path != segment.path or facts.partition != record.partition or place[-3:] != facts[:3]:
        raise ManifestError(
            f"commit {record.commit}, of partition {record.partition}, adds {segment.path} as {segment.tier} "
            f"{segment.grain} {segment.period}, entries {facts.partition}:{facts.first_index} to {facts.last_index}"
        )
    if not 1 <= facts.first_index <= facts.last_index or not 0 <= facts.rows <= facts.entries:
        raise ManifestError(
            f"commit {record.commit}: {segment.path} cannot hold {facts.entries} entries, {facts.rows} of them DATA"
        )


def _places(record: Commit, before: Sequence[Segment]) -> list[int]:
    """Where the files stand that a commit drops, ascending."""
    places, missing = set(), []
    for path in record.drops:
        try:
            place = bisect.bisect_left(before, place_in(path).first_index, key=_first_index)
        except ValueError as error:
            raise ManifestError(f"commit {record.commit}: {error}") from error
        if place < len(before) and before[place].path == path:
            places.add(place)
        else:
            missing.append(path)
    if missing:
        raise ManifestError(f"commit {record.commit} drops {missing[:3]}, which are not there")
    if len(places) != len(record.drops):
        raise ManifestError(f"commit {record.commit} drops a file twice")
    if again := {segment.path for segment in record.adds} & set(record.drops):
        # what is dropped is deleted after the commit
        raise ManifestError(f"commit {record.commit} adds and drops {sorted(again)[:3]}")
    return sorted(places)


def _without(before: Sequence[Segment], places: Sequence[int]) -> list[Segment]:
    stay: list[Segment] = []
    begin = 0
    for place in places:
        stay += before[begin:place]
        begin = place + 1
    stay += before[begin:]
    return stay


def _check_joined(record: Commit, end: End, other: Segment, behind: str) -> None:
    facts = other.facts
    if (end.index + 1, end.sequence + 1, end.chain) != (facts.first_index, facts.first_sequence, facts.chain_before):
        raise ManifestError(f"after commit {record.commit} {other.path} does not go on where {behind} ends")


def _check_move(
    record: Commit, before: Sequence[Segment], after: Sequence[Segment], dropped: Sequence[Segment]
) -> None:
    """That a commit does to the range of entries what its kind may do."""
    was, now = _range(before), _range(after)
    match record.move:
        case Move.SEAL:
            fine = not record.drops and bool(record.adds) and (was is None or (now is not None and now[0] == was[0]))
        case Move.PRUNE:
            fine = not record.adds and bool(record.drops) and (now is None or (was is not None and now[1] == was[1]))
        case Move.DEMOTE | Move.PROMOTE:
            fine = _is_moved(record, dropped)
        case Move.COMPACT | Move.RESTORE:
            fine = bool(record.adds) and bool(record.drops) and was == now
    if not fine:
        raise ManifestError(f"commit {record.commit} is a {record.move} and makes of {_told(was)} {_told(now)}")


def _is_moved(record: Commit, dropped: Sequence[Segment]) -> bool:
    """Whether each file that comes is one that goes, in the place of a tier that is farther or nearer."""
    farther = record.move is Move.DEMOTE
    tiers = list(Tier)
    adds = sorted(record.adds, key=_first_index)
    return (
        bool(adds)
        and len(adds) == len(dropped)
        and all(
            one._replace(path=other.path, tier=other.tier, moved_us=other.moved_us) == other
            and place_in(one.path).name == place_in(other.path).name
            and one.tier != other.tier
            and (tiers.index(one.tier) < tiers.index(other.tier)) == farther
            for one, other in zip(dropped, adds, strict=True)
        )
    )


def _told(ends: tuple[End, End] | None) -> str:
    if ends is None:
        return "nothing"
    (first, first_sequence, before), (last, last_sequence, after) = ends
    return f"{first}..{last} (sequences {first_sequence}..{last_sequence}, chain {before:.8}..{after:.8})"


def _range(segments: Sequence[Segment]) -> tuple[End, End] | None:
    """The first entry, with the hash before it, and the last."""
    if not segments:
        return None
    facts = segments[0].facts
    return End(facts.first_index, facts.first_sequence, facts.chain_before), _end_of(segments[-1])
