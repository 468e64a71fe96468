"""Where archives lie that are on no disk of this machine: a URI, taken apart before anything is asked of it.

    s3://bucket/prefix?region=eu-central-1                                 S3
    s3://bucket/prefix?endpoint_override=store.example:9000&scheme=http    what speaks S3
    gs://bucket/prefix                                                     Google's
    file:///mnt/cold/driftledger                                           a folder: a slower disk, or one of a network

GUARANTEE what is taken holds no key, no password and no token: these come from the environment, or from where else the
store's own client looks for them. What is refused is not repeated, for it may hold one.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

_PARAMETERS: Final = {
    "s3": ("region", "endpoint_override", "scheme", "tls_ca_file_path"),
    "gs": ("endpoint_override", "scheme"),
    "file": (),
}
_TRANSPORTS: Final = ("http", "https")
#: Of both: no dots at either end, nothing that a path reads as another place.
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_NAME: Final = re.compile(r"[a-z_]{1,32}")


class ArchiveUri(NamedTuple):
    """path: bucket and prefix, or a folder; parameters: of the query. No secret is in it."""

    scheme: str
    path: str
    parameters: dict[str, str]

    @property
    def shown(self) -> str:
        """For people."""
        return f"{self.scheme}://{self.path}"


def parse(uri: str) -> ArchiveUri:
    """What a URI says. Raises ValueError, which repeats nothing of it but a name of a parameter."""
    try:
        parts = urlsplit(uri)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError("it is no URI") from None
    known = _PARAMETERS.get(parts.scheme)
    if known is None:
        raise ValueError(f"it begins with none of {', '.join(f'{scheme}://' for scheme in _PARAMETERS)}")
    if "@" in parts.netloc:
        raise ValueError(
            "it names a user: keys never stand in a URI. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what else "
            "the store's client reads"
        )
    if parts.fragment:
        raise ValueError("it has a part behind #")
    parameters = _parameters(pairs, known)
    path = unquote(parts.path).rstrip("/")
    if any(part in ("", ".", "..") for part in path.split("/")[1:]) or "\0" in path:
        raise ValueError("its path has an empty part, or one of dots")
    if parts.scheme == "file":
        if parts.netloc or not path:
            raise ValueError("it is no folder of this machine: file:/// and its path")
        return ArchiveUri(parts.scheme, path, parameters)
    if _BUCKET.fullmatch(parts.netloc) is None:
        raise ValueError(f"it names no bucket: {parts.scheme}://BUCKET/PREFIX")
    return ArchiveUri(parts.scheme, parts.netloc + path, parameters)


def _parameters(pairs: list[tuple[str, str]], known: tuple[str, ...]) -> dict[str, str]:
    for name, value in pairs:
        if name not in known:
            named = name if _NAME.fullmatch(name) else "of another name"
            raise ValueError(f"it has a parameter {named}; there are {', '.join(known) or 'none'}")
        if not value:
            raise ValueError(f"its parameter {name} is empty")
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        raise ValueError("it has a parameter twice")
    if parameters.get("scheme", "https") not in _TRANSPORTS:
        raise ValueError("its parameter scheme is neither http nor https")
    return parameters
