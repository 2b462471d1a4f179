"""Matching routing keys against many topic patterns at once.

Words are separated by points.  In a pattern ``*`` stands for exactly one word and ``#`` for zero or more, as in AMQP; the
empty key has no words at all (RabbitMQ's reading), so ``#`` matches it and ``*`` does not.

All patterns go into one trie, and a key walks it with the *set* of places it may have reached.  The cost for a
key depends on its number of words and on how many patterns go along with it, not on how many there are; and a pattern
full of ``#`` cannot make it try each way to cut the key, because a place is in the set once.

The trie is four flat lists, indexed by place, not linked objects: it is built in one pass, pickles without recursion,
and is shared by forked processes without touching reference counts all over the heap.

Rejected: one regular expression a pattern (a scan, and exponential for some), a cache by key (keys made by strangers would
fill it).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

ONE, MANY = '*', '#'

_ROOT = 0
_NOWHERE = -1
# Most places are leaves: they share one dictionary, which is never written to.
_LEAF: dict[str, int] = {}


def split_words(key: str) -> list[str]:
    """:return: the words of a routing key or pattern; the empty key has none."""
    return key.split('.') if key else []


def normalize_pattern(pattern: str) -> tuple[str, ...]:
    """:return: the words of `pattern`, each run of wildcards written in one way: first the ``*``, then one ``#``.

    ``#.*.#`` and ``*.#`` match the same keys; here they become equal, and ``#`` never follows ``#``.
    """
    found: list[str] = []
    is_many = False
    for word in split_words(pattern):
        if word == MANY:
            is_many = True
            continue
        if is_many and word != ONE:
            found.append(MANY)
            is_many = False
        found.append(word)
    if is_many:
        found.append(MANY)
    return tuple(found)


class TopicTrie:
    """Patterns, compiled.  A pattern's number is its place in the sequence that the trie was built from."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._words: list[dict[str, int]] = []
        self._one: list[int] = []
        self._many: list[int] = []
        self._stays: list[bool] = []
        self._ends: dict[int, list[int]] = {}
        self._place(stays=False)
        for number, pattern in enumerate(patterns):
            self._add(number, normalize_pattern(pattern))

    def _place(self, stays: bool) -> int:
        self._words.append(_LEAF)
        self._one.append(_NOWHERE)
        self._many.append(_NOWHERE)
        self._stays.append(stays)
        return len(self._words) - 1

    def _add(self, number: int, pattern: Sequence[str]) -> None:
        at = _ROOT
        for word in pattern:
            if word == ONE:
                if self._one[at] == _NOWHERE:
                    self._one[at] = self._place(stays=False)
                at = self._one[at]
            elif word == MANY:
                if self._many[at] == _NOWHERE:
                    self._many[at] = self._place(stays=True)
                at = self._many[at]
            else:
                after = self._words[at].get(word)
                if after is None:
                    after = self._place(stays=False)
                    if self._words[at] is _LEAF:
                        self._words[at] = {}
                    self._words[at][word] = after
                at = after
        self._ends.setdefault(at, []).append(number)

    def match(self, key: str) -> list[int]:
        """:return: the numbers of all patterns that `key` matches, in ascending order."""
        words, one = self._words, self._one
        reached = self._with_many([_ROOT])
        for word in split_words(key):
            onward: list[int] = []
            for at in reached:
                if self._stays[at]:
                    onward.append(at)
                after = words[at].get(word)
                if after is not None:
                    onward.append(after)
                if one[at] != _NOWHERE:
                    onward.append(one[at])
            if not onward:
                return []
            reached = self._with_many(onward)
        return self._numbers(reached)

    def _with_many(self, places: Sequence[int]) -> list[int]:
        # `#` may stand for nothing: who is before it is behind it too.  Two of them never follow each other (canonical).
        # A place is reached along one path only, so without a `#` there is nothing to make unique.
        many = self._many
        behind = [many[at] for at in places if many[at] != _NOWHERE]
        return list(dict.fromkeys([*places, *behind])) if behind else list(places)

    def _numbers(self, reached: Sequence[int]) -> list[int]:
        return sorted(number for at in reached for number in self._ends.get(at, ()))


def explain_mismatch(pattern: str, key: str) -> str:
    """Say why `key` does not match, for people; only of interest where it does not."""
    wanted, given = normalize_pattern(pattern), split_words(key)
    fixed = wanted.index(MANY) if MANY in wanted else len(wanted)
    for number, (word, found) in enumerate(zip(wanted[:fixed], given, strict=False), 1):
        if word not in (ONE, found):
            return f'word {number} is {found!r}, not {word!r}'
    least = sum(word != MANY for word in wanted)
    if len(given) < least or (MANY not in wanted and len(given) > least):
        return f'the key has {_counted(given)}, the pattern wants {"at least " * (MANY in wanted)}{least}'
    return f'the words after the first {fixed} do not fit' if fixed else 'the words do not fit'


def _counted(words: Sequence[str]) -> str:
    return '1 word' if len(words) == 1 else f'{len(words)} words'
