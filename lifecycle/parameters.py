"""Parameters of a URL, by name: none that is unknown, none twice that may not be, and what their texts say.

GUARANTEE what is refused is BadInputError, which names the parameter and says what to give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from schemas.errors import BadInputError

if TYPE_CHECKING:
    import enum
    from collections.abc import Callable, Iterable

    Member = TypeVar("Member", bound=enum.StrEnum)

T = TypeVar("T")

_REPEATED: Final = ("source", "kind", "partition", "sequences")


class Given:
    """Parameters as they were given, by name."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._texts: dict[str, list[str]] = {}
        for name, text in pairs:
            self._texts.setdefault(name, []).append(text)

    def check(self, *known: str) -> None:
        """That there are no others, and none twice that may not be."""
        for name, texts in self._texts.items():
            if name not in known:
                raise BadInputError(f"unknown parameter {name!r:.80}; the parameters are {', '.join(known)}")
            if len(texts) > 1 and name not in _REPEATED:
                raise BadInputError(f"{name} is given {len(texts)} times. Give it once")

    def all(self, name: str) -> list[str]:
        """Each text of a parameter."""
        return self._texts.get(name, [])

    def one(self, name: str, read: Callable[[str], T]) -> T | None:
        """What a parameter says, None where it is not given."""
        for text in self.all(name):
            try:
                return read(text)
            except BadInputError as error:
                raise BadInputError(f"{name}: {error}") from None
        return None

    def member(self, name: str, closed: type[Member], default: Member) -> Member:
        """The member that a parameter names."""
        found = self.one(name, lambda text: member_of(text, closed))
        return default if found is None else found

    def partitions(self) -> tuple[int, ...] | None:
        """Partitions; None for all."""
        return tuple(natural("partition", text) for text in self.all("partition")) or None


def member_of(text: str, closed: type[Member]) -> Member:
    """The member with that value."""
    found = next((member for member in closed if text == member.value), None)
    if found is None:
        raise BadInputError(f"{text!r:.40} is none of {', '.join(member.value for member in closed)}. Give one of them")
    return found


def utf8_of(what: str, text: str) -> bytes:
    """A text as UTF-8, where it can be: what a shell hands on need not be. what: whose text, for the message."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadInputError(f"{what} {text!a:.80} is not UTF-8. Give text") from None


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = natural("it", text)
    if not number:
        raise BadInputError("0 is too little. Give 1 or more")
    return number


def natural(name: str, text: str) -> int:
    """A whole number from 0 on, of at most 15 digits."""
    if not text.isascii() or not text.isdigit() or len(text) > 15:  # noqa: PLR2004 - far inside 64 bits
        raise BadInputError(f"{name} is {text!r:.40}, no whole number. Give digits")
    return int(text)
