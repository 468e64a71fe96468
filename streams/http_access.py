"""Who may ask a worker by HTTP: which requests are answered, and what is said to the others.

On loopback every user of the machine may ask, and a token is a choice. The danger there is a page of some other site in
a browser of this machine. What gives it away:

- its Origin is another than the address that it asks, or the browser says itself that it is another site's
  (Sec-Fetch-Site);
- a name that was bound to this address afterwards (DNS rebinding) stands in Host: it must be one of loopback, or the
  host that is configured.

Elsewhere than on loopback the token is required, of everything but the page's own files, which say nothing. Where it is
not known by which names a machine is called (0.0.0.0), any Host will do: another site's page does not have the token.

GUARANTEE how long a comparison of tokens takes says nothing of how much of one is right.
HAZARD the token travels in plain text. Beyond loopback put a proxy with TLS before it.
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_SCHEME: Final = "Bearer "
#: What a browser says of a request of this address's own page, and of one that its user typed.
_OWN_SITES: Final = ("same-origin", "none")


class Refusal(NamedTuple):
    """The status and what is wrong."""

    status: int
    error: str


class Access:
    """The rules of one worker. host: the address it listens on; token: None where none is asked for."""

    def __init__(self, host: str, token: str | None) -> None:
        self.token_required = token is not None
        self._token = b"" if token is None else token.encode()
        self._names = None if is_wildcard(host) else (*_LOOPBACK_NAMES, host.lower())

    def refusal(self, headers: Mapping[str, str], *, page_file: bool) -> Refusal | None:
        """Why a request is refused, None where it is not. page_file: it asks for a file of the page itself."""
        host, origin = headers.get("Host", ""), headers.get("Origin")
        if self._names is not None and _hostname(host) not in self._names:
            return Refusal(403, f"Host is {host!r:.80}. Address the worker as {', '.join(dict.fromkeys(self._names))}")
        if origin is not None and origin != f"http://{host}":
            return Refusal(403, f"Origin is {origin!r:.80}: pages of other sites are not answered")
        site = headers.get("Sec-Fetch-Site")
        if site is not None and site not in _OWN_SITES and not page_file:
            return Refusal(403, f"Sec-Fetch-Site is {site!r:.80}: pages of other sites are not answered")
        if self.token_required and not page_file and not self._knows(headers.get("Authorization", "")):
            return Refusal(401, "this worker asks for its http_token. Send Authorization: Bearer and the token")
        return None

    def _knows(self, authorization: str) -> bool:
        scheme, given = authorization[: len(_SCHEME)], authorization[len(_SCHEME) :]
        return scheme.lower() == _SCHEME.lower() and hmac.compare_digest(given.encode(errors="replace"), self._token)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_wildcard(host: str) -> bool:
    """Whether it stands for every address of the machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
