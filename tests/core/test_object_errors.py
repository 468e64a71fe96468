"""What a store of objects answers: which trouble it is, as its client words it."""

from __future__ import annotations

import pytest

from lifecycle.object_errors import REMEDIES, Trouble, shown, trouble_in


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("AWS Error ACCESS_DENIED during HeadObject operation: No response body.", Trouble.REFUSED),
        ("AWS Error UNKNOWN (HTTP status 403) during PutObject operation", Trouble.REFUSED),
        ("AWS Error SIGNATURE_DOES_NOT_MATCH during GetObject operation", Trouble.REFUSED),
        ("AWS Error NO_SUCH_BUCKET during PutObject operation: The bucket is not there", Trouble.NO_BUCKET),
        ("Bucket 'cold' not found", Trouble.NO_BUCKET),
        ("AWS Error SLOW_DOWN during PutObject operation", Trouble.BUSY),
        ("AWS Error UNKNOWN (HTTP status 503) during GetObject operation", Trouble.BUSY),
        ("AWS Error INTERNAL_FAILURE during GetObject operation", Trouble.BUSY),
        ("AWS Error NETWORK_CONNECTION during GetObject: curlCode: 28, Timeout was reached", Trouble.TIMEOUT),
        ("AWS Error NETWORK_CONNECTION during GetObject: curlCode: 7, Could not connect", Trouble.NO_CONNECTION),
        ("something else", Trouble.OTHER),
    ],
)
def test_an_answer_is_known_by_its_words(text: str, trouble: Trouble) -> None:
    """Each has a remedy."""
    assert trouble_in(text) is trouble
    assert REMEDIES[trouble]


def test_a_long_answer_is_cut() -> None:
    """And is one line."""
    assert shown("a\n  b") == "a b"
    assert shown("x" * 1_000) == "x" * 300 + "..."
