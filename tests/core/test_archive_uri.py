"""Where archives lie elsewhere: what a URI says, and that none has a key in it."""

from __future__ import annotations

import pytest

from schemas.errors import BadInputError
from streams.archive_uri import parse
from streams.settings_file import load

SECRET = "AKIAVERYSECRET"  # noqa: S105 - of a test


@pytest.mark.parametrize(
    ("uri", "path", "parameters", "shown"),
    [
        ("s3://cold", "cold", {}, "s3://cold"),
        ("s3://cold/", "cold", {}, "s3://cold"),
        ("s3://cold/a/b%20c?region=eu-central-1", "cold/a/b c", {"region": "eu-central-1"}, "s3://cold/a/b c"),
        (
            "s3://cold/a?endpoint_override=127.0.0.1%3A9000&scheme=http",
            "cold/a",
            {"endpoint_override": "127.0.0.1:9000", "scheme": "http"},
            "s3://cold/a",
        ),
        ("gs://cold/a", "cold/a", {}, "gs://cold/a"),
        ("file:///mnt/cold", "/mnt/cold", {}, "file:///mnt/cold"),
    ],
)
def test_a_uri_is_taken_apart(uri: str, path: str, parameters: dict[str, str], shown: str) -> None:
    """Scheme, bucket and prefix, parameters; for people without the latter."""
    parsed = parse(uri)
    assert (parsed.path, parsed.parameters, parsed.shown) == (path, parameters, shown)
    assert load(archive_uri=uri).archive_uri == uri


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("", "begins with none of"),
        ("cold/a", "begins with none of"),
        ("http://cold/a", "begins with none of"),
        ("s3:///a", "names no bucket"),
        ("s3://UPPER/a", "names no bucket"),
        ("s3://cold:9000/a", "names no bucket"),
        ("s3://cold/a/../b", "one of dots"),
        ("s3://cold//a", "an empty part"),
        ("s3://cold/%2e%2e/b", "one of dots"),
        ("s3://cold/a#b", "behind #"),
        ("s3://cold/a?regoin=x", "a parameter regoin; there are region, "),
        ("s3://cold/a?region=", "its parameter region is empty"),
        ("s3://cold/a?region=a&region=b", "twice"),
        ("s3://cold/a?scheme=ftp", "neither http nor https"),
        ("file://host/a", "no folder of this machine"),
        ("file:///", "no folder of this machine"),
        ("file:///a?region=x", "there are none"),
        (f"s3://{SECRET}:{SECRET}@cold/a", "names a user"),
        (f"s3://cold/a?access_key={SECRET}", "a parameter access_key"),
        (f"s3://cold/a?{SECRET}", "is no URI"),
        (f"s3://cold/a?{SECRET}=x", "of another name"),
        (f"s3://[{SECRET}/a", "is no URI"),
    ],
)
def test_what_is_refused_is_not_repeated(uri: str, why: str) -> None:
    """It may have a key in it, wherever somebody put that."""
    with pytest.raises(ValueError, match=why) as refused:
        parse(uri)
    assert SECRET not in str(refused.value)
    if uri:
        with pytest.raises(BadInputError, match=r"option --archive-uri = \(not shown\): ") as told:
            load(archive_uri=uri)
        assert SECRET not in str(told.value)
