"""A file that is lost or damaged, made again of what a run that was cut off has left: a copy, or what it was joined of.

Problem: a run that died between a commit and the removal of what that dropped leaves files whose entries are all in
another one. Where just this is damaged they are as good as it was, and where the ledger was cut they are all there is.

GUARANTEE what is made is proved entry by entry, and has the facts that the manifest has of the file; else nothing is
done.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from typing import TYPE_CHECKING

from lifecycle.archive import facts_at, opened
from lifecycle.archiving import join
from lifecycle.chunk_codec import decode_header
from lifecycle.file_tree import told_as_refusal
from lifecycle.found_files import Found, chosen
from lifecycle.job_steps import Fresh, blobs_of, put_back, spans_of, written
from lifecycle.layout import place_in
from lifecycle.manifest import End
from lifecycle.mending import mend_index
from lifecycle.packing import DamagedError
from lifecycle.reindexing import index_again
from lifecycle.verifying import digest_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lifecycle.job_steps import Work
    from lifecycle.manifest import Segment


def mend_of_leftovers(work: Work, segment: Segment) -> bool:
    """Make a file again of what lies there without a name in the manifest; False where that does not give it."""
    found = _within(work, segment)
    for file in found:
        if file.place.name == place_in(segment.path).name and _copied(work, segment, file.path):
            return True
    facts = segment.facts
    before = End(facts.first_index - 1, facts.first_sequence - 1, facts.chain_before)
    parts = chosen((file for file in found if file.place.name != place_in(segment.path).name), before)
    if not parts or parts[-1].place.last_index != facts.last_index:
        return False
    try:
        _join_again(work, segment, parts)
    except DamagedError:
        return False
    return True


def _within(work: Work, segment: Segment) -> list[Found]:
    """Archives that the manifest does not name, of the entries of a file."""
    facts, found = segment.facts, []
    for path in work.files.orphans(work.lease.tree):
        try:
            place = place_in(path)
        except ValueError:  # an index, or nobody's
            continue
        within = facts.first_index <= place.first_index and place.last_index <= facts.last_index
        if place.partition == facts.partition and within:
            with contextlib.suppress(DamagedError), work.files.open_checked(path) as data:
                found.append(Found(path, place, facts_at(place.name, data)))
    return found


def _copied(work: Work, segment: Segment, path: str) -> bool:
    """Have a copy in its place, where it is one."""
    with work.files.open_checked(path) as copy:
        if digest_of(copy) != segment.sha256:
            return False
    fresh = work.files.fresh(segment.tier)
    with work.files.open_checked(path) as copy, told_as_refusal(fresh), fresh.open("wb") as target:
        shutil.copyfileobj(copy, target)
    work.files.replace(fresh, segment.path)
    mend_index(work, segment)
    return True


def _join_again(work: Work, segment: Segment, parts: Sequence[Found]) -> None:
    data = work.files.fresh(segment.tier)
    with contextlib.ExitStack() as stack, told_as_refusal(data):
        archives = []
        for part in parts:
            content = index_again(work.files.open_checked(part.path), part.place.name)  # which proves it
            file = opened(part.place.name, work.files.open_checked(part.path), io.BytesIO(content))
            archive, index = stack.enter_context(file)
            archives.append((archive, blobs_of(index)))
        name, index_bytes, facts = join(data, archives, work.compression)
    headers = [
        decode_header(facts.partition, blob.first_sequence, blob.header) for _, blobs in archives for blob in blobs
    ]
    put_back(work, segment, Fresh(data, written(work, segment.tier, index_bytes), name, facts, spans_of(headers)))
