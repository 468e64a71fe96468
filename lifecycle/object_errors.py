"""What a store of objects answered when it did not do what was asked: told apart by its words, each with a remedy.

Its client raises one kind of error for all, with the store's own code in the text. A code that is not known here is
told as it is.
"""

from __future__ import annotations

import enum
import re
from typing import Final

#: Characters of the client's text that a message repeats.
_SHOWN_MAX: Final = 300


class Trouble(enum.StrEnum):
    """By what can be done about it."""

    REFUSED = "refused"
    NO_BUCKET = "no bucket"
    BUSY = "busy"
    TIMEOUT = "timeout"
    NO_CONNECTION = "no connection"
    OTHER = "other"


REMEDIES: Final = {
    Trouble.REFUSED: (
        "See that the keys in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or those of the "
        "machine) are in force and may list, get, put and delete there"
    ),
    Trouble.NO_BUCKET: "Create the bucket, or mend archive_uri",
    Trouble.BUSY: "It asks for fewer requests, or is ill: run it again later",
    Trouble.TIMEOUT: "See that the store and the way to it are well, and run it again",
    Trouble.NO_CONNECTION: "See that the store runs, and that archive_uri names its address and scheme",
    Trouble.OTHER: "Mend that, and run it again",
}

#: In this order: the first that is found says it.
_WORDS: Final = (
    (Trouble.NO_BUCKET, r"NO_SUCH_BUCKET|NoSuchBucket|Bucket '[^']*' not found"),
    (
        Trouble.REFUSED,
        (
            r"ACCESS_DENIED|AccessDenied|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|SIGNATURE_DOES_NOT_MATCH|"
            r"INVALID_SIGNATURE|EXPIRED_TOKEN|ExpiredToken|MISSING_AUTHENTICATION_TOKEN|HTTP status 40[13]\b|"
            r"UNRECOGNIZED_CLIENT"
        ),
    ),
    (
        Trouble.BUSY,
        (
            r"SLOW_DOWN|SlowDown|THROTTLING|SERVICE_UNAVAILABLE|ServiceUnavailable|INTERNAL_FAILURE|InternalError|"
            r"HTTP status (?:429|5\d\d)\b"
        ),
    ),
    (Trouble.TIMEOUT, r"REQUEST_TIMEOUT|curlCode: 28\b|[Tt]imed? ?out|Timeout was reached"),
    (Trouble.NO_CONNECTION, r"NETWORK_CONNECTION|curlCode: \d+|Connection refused|Couldn't resolve host"),
)


def trouble_in(text: str) -> Trouble:
    """Which it is."""
    return next((trouble for trouble, words in _WORDS if re.search(words, text)), Trouble.OTHER)


def shown(text: str) -> str:
    """A client's text in one line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_MAX else line[:_SHOWN_MAX] + "..."
