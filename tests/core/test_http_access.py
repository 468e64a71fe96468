"""Who may ask a worker, and who may not."""

from __future__ import annotations

import pytest

from streams.http_access import Access, is_loopback, is_wildcard

TOKEN = "correct-horse-battery"  # noqa: S105 - of a test
HOST = {"Host": "127.0.0.1:8411"}


def _status(access: Access, headers: dict[str, str], *, page_file: bool = False) -> int:
    refusal = access.refusal(headers, page_file=page_file)
    return 200 if refusal is None else refusal.status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (HOST, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:8411"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({}, 403),
        ({**HOST, "Origin": "http://127.0.0.1:8411"}, 200),
        ({**HOST, "Origin": "http://127.0.0.1:1"}, 403),
        ({**HOST, "Origin": "null"}, 403),
        ({**HOST, "Sec-Fetch-Site": "same-origin"}, 200),
        ({**HOST, "Sec-Fetch-Site": "none"}, 200),
        ({**HOST, "Sec-Fetch-Site": "cross-site"}, 403),
        ({**HOST, "Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_on_loopback_other_sites_are_refused(headers: dict[str, str], status: int) -> None:
    """By Host, by Origin, or by what the browser says."""
    assert _status(Access("127.0.0.1", None), headers) == status


def test_a_link_of_another_site_may_lead_to_the_page() -> None:
    """It says nothing; its name must be one of ours all the same."""
    access = Access("127.0.0.1", None)
    assert _status(access, {**HOST, "Sec-Fetch-Site": "cross-site"}, page_file=True) == 200
    assert _status(access, {"Host": "evil.example"}, page_file=True) == 403


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        ("Bearer ", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer \udce4", 401),
        ("", 401),
    ],
)
def test_a_token_is_asked_for_where_there_is_one(given: str, status: int) -> None:
    """Of everything but the page's files."""
    access = Access("127.0.0.1", TOKEN)
    assert _status(access, {**HOST, "Authorization": given}) == status
    assert _status(access, {**HOST, "Authorization": given}, page_file=True) == 200


def test_the_configured_host_is_a_name_too_and_of_all_addresses_any() -> None:
    """Nobody can know by which names a machine is called; the token protects it."""
    asked = {"Authorization": f"Bearer {TOKEN}"}
    assert _status(Access("10.1.2.3", TOKEN), {**asked, "Host": "10.1.2.3:8411"}) == 200
    assert _status(Access("10.1.2.3", TOKEN), {**asked, "Host": "ledger.example"}) == 403
    assert _status(Access("0.0.0.0", TOKEN), {**asked, "Host": "ledger.example"}) == 200  # noqa: S104 - a test
    assert _status(Access("0.0.0.0", TOKEN), {"Host": "ledger.example"}) == 401  # noqa: S104 - a test


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST"])
def test_what_is_loopback(host: str) -> None:
    """Only this machine reaches it."""
    assert is_loopback(host)
    assert not is_wildcard(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "ledger.example"])  # noqa: S104 - a test
def test_what_is_not_loopback(host: str) -> None:
    """Others reach it."""
    assert not is_loopback(host)
    assert is_wildcard(host) == (host in ("0.0.0.0", "::"))  # noqa: S104 - a test
