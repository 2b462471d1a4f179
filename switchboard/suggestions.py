"""Suggestions for a misspelled word: the known word that looks most like it.  A file of its own, so that a look at a queue need not load the configuration."""

from __future__ import annotations

TYPE_CHECKING = False  # the module `typing` takes longer to load than this one
if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """:return: the end of an error's sentence: the known word that looks like `word`, or nothing."""
    close = closest(word, known)
    return f'; did you mean {close}?' if close else ''


def closest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """:return: the known word that looks most like `word`, capitals or not, or None."""
    import difflib  # here, because few names need a suggestion

    by_small = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_small, n=1, cutoff=cutoff)
    return by_small[close[0]] if close else None


def is_misspelled(word: str, unknown: Iterable[str]) -> bool:
    """:return: whether one of the names that nobody knows is `word` with a slip: then it is one mistake, and not a missing word, too."""
    return any(did_you_mean(name, (word,)) for name in unknown)
