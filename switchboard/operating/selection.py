"""The selection language: which entries are meant, in one line that people type, programs send and URLs hold.

A selection is words with blanks between them, and an entry has to fit all of them::

    queue:bad error:Timeout* older:1d -kind:mail sender:eve@example.com state:held,delayed tries:>3 "subject:a b"

A word is ``field:value``.  Commas separate alternatives, ``*`` stands for any text, a word with ``-`` in front must not fit.  Quotes
(``"``) hold together a value with blanks, commas or colons in it, and ``\\`` takes the meaning from a ``*``, a quote or itself.  Numbers, sizes and durations take
``>``, ``>=``, ``<`` and ``<=``.  A field that is not in `FIELDS` is a key of the metadata; ``metadata.kind:x`` is one that has the name of a field.

`Selection.parse` reads that, and ``str()`` writes it in one form only, so that equal selections are equal texts.

Names decide what they can, and files are opened only for the rest.  Nothing is claimed: what fits may have gone on a moment later, and an
act that claims it notices that then.
"""

from __future__ import annotations

import json
import logging
import operator
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Self

from switchboard.config.units import duration_s, format_duration, format_size, size_bytes
from switchboard.errors import SelectionError
from switchboard.events import log_event
from switchboard.message.naming import (
    CLAIMED,
    NS_PER_S,
    PRESERVED,
    READY,
    format_when,
    is_on_hold,
    when_ns_of,
)
from switchboard.operating.finding import FoundEntry
from switchboard.operating.queue_counts import walk_entries
from switchboard.operating.summary import STATES, SUFFIXES, EntrySummary, priority_of, state_of
from switchboard.store.folder import Folder
from switchboard.suggestions import closest, did_you_mean

log = logging.getLogger('switchboard.queue')

# A selection is typed by a person or stands in a URL; a longer one is a mistake, or an attempt to keep us busy.
MAX_TEXT = 8000
MAX_WORDS = 64

METADATA_PREFIX = 'metadata.'
# What lists show of a mail or a Celery task, and no selection reads: a body may be large.
BODY_FIELDS = ('subject', 'task', 'args', 'kwargs')
# So much a word has to look like a field before it is called a slip: `customer` is none of `cause`.
MIN_LIKENESS = 0.75
_PLAIN_KEY = re.compile(r'[^\s:,"\\*>-][^\s:,"\\*]*')
_COMPARISON = re.compile(r'(>=|<=|>|<|)(.*)', re.DOTALL)
_COMPARE = {'>': operator.gt, '>=': operator.ge, '<': operator.lt, '<=': operator.le, '': operator.eq}


class Pattern(NamedTuple):
    """A text with ``*`` in it: the pieces between the stars."""

    pieces: tuple[str, ...]

    @classmethod
    def exactly(cls, text: str) -> Self:
        """:return: the pattern that this text alone fits, whatever stars it has."""
        return cls((text,))

    @property
    def text(self) -> str:
        """The pattern as one text, its stars as stars."""
        return '*'.join(self.pieces)

    def matches(self, text: str) -> bool:
        """:return: whether a text fits as a whole."""
        first, *others = self.pieces
        if not others:
            return text == first
        *between, last = others
        at, end = len(first), len(text) - len(last)
        if at > end or not (text.startswith(first) and text.endswith(last)):
            return False
        # From the left, each piece at its first place: linear, where a regular expression would try all of them.
        for piece in between:
            at = text.find(piece, at, end)
            if at < 0:
                return False
            at += len(piece)
        return True

    def __str__(self) -> str:
        escaped = '*'.join(re.sub(r'([\\*"])', r'\\\1', piece) for piece in self.pieces)
        return f'"{escaped}"' if not escaped or re.search(r'[\s,:]', escaped) or '"' in escaped else escaped


class Comparison(NamedTuple):
    """A number to compare with; durations are whole milliseconds."""

    comparison: str
    number: int

    def matches(self, found: float) -> bool:
        """:return: whether a number is as asked for."""
        return bool(_COMPARE[self.comparison](found, self.number))


class Field(NamedTuple):
    """One of the fields that are known: how its values are read and written, and what of an entry they are compared with.

    :param of: the value that an entry has there, at a moment; of a text, all of its values.
    :param kind: ``text``, ``number``, ``size`` or ``duration``.
    :param ignores_case: upper and lower case are the same.
    :param any_before: any text may stand before the value.
    :param any_behind: any text may stand behind it.
    """

    help: str
    of: Callable[[EntrySummary, int], Any]
    kind: str = 'text'
    ignores_case: bool = False
    any_before: bool = False
    any_behind: bool = False

    def pattern(self, value: Pattern) -> Pattern:
        """:return: the pattern that a text has to fit, for a value that was asked for."""
        pieces = ('',) * self.any_before + value.pieces + ('',) * self.any_behind
        return Pattern(tuple(map(str.lower, pieces)) if self.ignores_case else pieces)


def _names(filebase: str) -> tuple[str, str]:
    return filebase, filebase.partition('+')[2]


def _age_ms(entry: EntrySummary, now_ns: int) -> float:
    return entry.age_s(now_ns) * 1000


FIELDS: dict[str, Field] = {
    'queue': Field('the queue it is in', lambda e, _: (e.queue,)),
    'id': Field(
        'the beginning of its name or of its digest', lambda e, _: _names(e.filebase), any_behind=True
    ),
    'state': Field(', '.join(sorted(STATES)), lambda e, now: (e.state(now),)),
    'error': Field(
        'class of its last error, or its cause', lambda e, _: (e.last_error[0], e.cause), ignores_case=True
    ),
    'frame': Field('innermost own frame of its last traceback: jobs.py:dispose', lambda e, _: (e.frame,)),
    'cause': Field(
        'why it was put aside: rejected, attempts, expired ...', lambda e, _: (e.cause,), ignores_case=True
    ),
    'match': Field(
        'a text in its last error',
        lambda e, _: (e.last_error[1], e.damage),
        ignores_case=True,
        any_before=True,
        any_behind=True,
    ),
    'origin': Field('the queue it came from', lambda e, _: (e.origin or '',)),
    'kind': Field('mail, json, text, bytes ...', lambda e, _: (e.kind.partition('+')[0],)),
    'older': Field('so long as it is now, or longer', _age_ms, 'duration'),
    'younger': Field('not so long as it is now', _age_ms, 'duration'),
    'age': Field('how long it is as it is now', _age_ms, 'duration'),
    'size': Field('bytes of its body', lambda e, _: e.body_bytes, 'size'),
    'tries': Field(
        'failures and deaths since it was last sent back', lambda e, _: e.attempts + e.recoveries, 'number'
    ),
    'sent_back': Field('how often it was sent back', lambda e, _: e.sent_back, 'number'),
    'priority': Field('0 to 9', lambda e, _: e.priority, 'number'),
}
# Words that say a comparison by their names.
_IMPLIED = {'older': '>=', 'younger': '<'}
# Of the last, two are the names that JSON has for them, and one is the name before.
ALIASES = {
    'newer': 'younger',
    'from': 'origin',
    'attempts': 'tries',
    'filebase': 'id',
    'body_bytes': 'size',
    'retried': 'sent_back',
}
_AGES = frozenset(('older', 'younger', 'age'))


class Term(NamedTuple):
    """One word of a selection: a field, the alternatives, and whether none of them may fit.

    :param field: a name in `FIELDS`, or a key of the metadata behind ``metadata.``.
    """

    field: str
    values: tuple[Pattern | Comparison, ...]
    negated: bool = False

    @classmethod
    def make(cls, field: str, *values: Pattern, negated: bool = False) -> Self:
        """:return: the word with these values.

        :raises SelectionError: a value is not what the field takes.
        """
        field = ALIASES.get(field, field)
        if field == METADATA_PREFIX:
            raise SelectionError(f'{METADATA_PREFIX} wants the name of a key behind it')
        if field.startswith(METADATA_PREFIX):
            return cls(field, values, negated)
        known = FIELDS.get(field)
        if known is None:
            return cls(METADATA_PREFIX + field, values, negated)
        if known.kind == 'text':
            for value in values:
                _check_text(field, value)
            return cls(field, values, negated)
        return cls(field, tuple(_comparison(field, known.kind, value.text) for value in values), negated)

    def matches_name(self, queue: str, filebase: str, suffix: str, now_ns: int) -> bool | None:
        """:return: the answer by a name alone; None if the file has to be opened."""
        if self.field in _AGES:
            when_ns = when_ns_of(filebase)
            # Its history says since when; and of one in the future its file's date, whether it is delayed.
            if suffix == PRESERVED or is_on_hold(filebase) or (when_ns > now_ns and suffix == READY):
                return None
            found: Any = (now_ns - when_ns) / NS_PER_S * 1000
        elif self.field == 'queue':
            found = (queue,)
        elif self.field == 'id':
            found = _names(filebase)
        elif self.field == 'state':
            state = state_of(filebase, suffix, is_due=filebase <= format_when(now_ns) + '~')
            if state == 'delayed':
                return None  # its file's date says whether only a turned clock has put it there
            found = (state,)
        elif self.field == 'priority':
            found = priority_of(filebase)
        else:
            return None
        return self._any(found) is not self.negated

    def matches(self, entry: EntrySummary, now_ns: int) -> bool:
        """:return: whether an entry is as the word says."""
        if self.field.startswith(METADATA_PREFIX):
            metadata = entry.metadata()
            key = self.field[len(METADATA_PREFIX) :]
            fits = key in metadata and any(
                _same(metadata[key], value) for value in self.values if isinstance(value, Pattern)
            )
            return fits is not self.negated
        return self._any(FIELDS[self.field].of(entry, now_ns)) is not self.negated

    def _any(self, found: Any) -> bool:
        known = FIELDS[self.field]
        if known.kind != 'text':
            return any(value.matches(found) for value in self.values)
        patterns = [known.pattern(value) for value in self.values if isinstance(value, Pattern)]
        return any(
            one.matches(text.lower() if known.ignores_case else text) for text in found for one in patterns
        )

    def __str__(self) -> str:
        key = self.field
        if key.startswith(METADATA_PREFIX):
            bare = key[len(METADATA_PREFIX) :]
            taken = bare in FIELDS or bare in ALIASES or bare.startswith(METADATA_PREFIX)
            key = key if taken else bare
        key = key if _PLAIN_KEY.fullmatch(key) else _quoted(key)
        return f'{"-" if self.negated else ""}{key}:{",".join(map(self._written, self.values))}'

    def _written(self, value: Pattern | Comparison) -> str:
        if isinstance(value, Pattern):
            return str(value)
        comparison = '' if self.field in _IMPLIED else value.comparison
        return comparison + _number_text(FIELDS[self.field].kind, value.number)


def _same(found: Any, value: Pattern) -> bool:
    """:return: whether a value of the metadata is the one that is asked for: as text, as JSON writes it, or as one of a list."""
    if isinstance(found, str):
        return value.matches(found)
    if isinstance(found, list | tuple | set | frozenset) and any(_same(one, value) for one in found):
        return True
    if isinstance(found, bool | int | float | list | dict) or found is None:
        try:
            return value.matches(json.dumps(found))
        except (TypeError, ValueError, RecursionError):
            return False
    return value.matches(str(found))


def _check_text(field: str, value: Pattern) -> None:
    if field == 'state' and value.text not in STATES:
        known = ', '.join(sorted(STATES))
        raise SelectionError(f'there is no state {value.text!r}{did_you_mean(value.text, STATES)}: {known}')
    if field == 'id' and value.pieces == ('',):
        raise SelectionError('id: wants the beginning of a name')


def _comparison(field: str, kind: str, text: str) -> Comparison:
    match = _COMPARISON.fullmatch(text)
    assert match is not None
    comparison, number = match[1], match[2]
    if field in _IMPLIED:
        if comparison:
            raise SelectionError(
                f'{field}:{text}: say `{field}:{number}`, or compare with `age:{comparison}{number}`'
            )
        comparison = _IMPLIED[field]
    try:
        if kind == 'duration':
            return Comparison(comparison, round(duration_s(number) * 1000))
        if kind == 'size':
            return Comparison(comparison, size_bytes(number))
        if not re.fullmatch('[0-9]{1,9}', number):
            raise ValueError(f'{number!r} is not a number')
        return Comparison(comparison, int(number))
    except ValueError as error:
        raise SelectionError(f'{field}: {error}') from error


def _number_text(kind: str, number: int) -> str:
    if kind == 'duration':
        return format_duration(number / 1000)
    return format_size(number) if kind == 'size' else str(number)


def _quoted(text: str) -> str:
    return '"' + re.sub(r'([\\*"])', r'\\\1', text) + '"'


class Selection(NamedTuple):
    """A selection of entries: all of its words must fit.  Without any, every entry does."""

    terms: tuple[Term, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a selection.

        :raises SelectionError: it cannot be read; the text says why.
        """
        if len(text) > MAX_TEXT:
            raise SelectionError(f'a selection has at most {MAX_TEXT} characters')
        terms = tuple(_words(text))
        if len(terms) > MAX_WORDS:
            raise SelectionError(f'a selection has at most {MAX_WORDS} words')
        return cls(terms)

    @classmethod
    def of(cls, *, metadata: Mapping[str, Any] | None = None, **fields: str | Iterable[str] | None) -> Self:
        """:return: the selection in which each of these fields has this value, or one of these; empty and None ask for nothing.

        Values are read as in the language, but for quotes: ``error='Time*'``, ``tries='>3'``.

        :param metadata: keys and values, as they are: a star is a star.
        :raises SelectionError: a value is not what its field takes.
        """
        terms = []
        for field, value in fields.items():
            texts = (value,) if isinstance(value, str) else tuple(value or ())
            if texts and any(texts):
                terms.append(Term.make(field, *(Pattern(tuple(text.split('*'))) for text in texts)))
        for key, wanted in (metadata or {}).items():
            text = wanted if isinstance(wanted, str) else json.dumps(wanted)
            terms.append(Term(METADATA_PREFIX + key, (Pattern.exactly(text),)))
        return cls(tuple(terms))

    def __and__(self, other: Selection) -> Selection:
        """:return: the selection of the entries that fit both."""
        return Selection((*self.terms, *other.terms))

    def hint_if_nothing_matches(self) -> str:
        """:return: the end of a sentence that says that nothing fits: a word that is taken for a key of the metadata, and may be meant otherwise."""
        for term in self.terms:
            key = term.field.removeprefix(METADATA_PREFIX)
            if key == term.field:
                continue
            if key in BODY_FIELDS:
                return f'; {key!r} is looked for in the metadata and not in the body: `ls --columns {key}` shows that'
            if meant := closest(key, (*FIELDS, *ALIASES), MIN_LIKENESS):
                return f'; {key!r} is taken for a key of the metadata: did you mean {meant}?'
            if any(str(value).lstrip('"')[:1] in ('<', '>') for value in term.values):
                return f'; {key!r} is a key of the metadata, whose values are texts here: only fields are compared by < and >'
        return ''

    def negated(self) -> Selection:
        """:return: each of the words with the opposite meaning."""
        return Selection(tuple(Term(term.field, term.values, not term.negated) for term in self.terms))

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __str__(self) -> str:
        return ' '.join(map(str, self.terms))

    def values(self, field: str) -> tuple[str, ...]:
        """:return: the texts that a field is asked to have."""
        return tuple(
            value.text
            for term in self.terms
            if term.field == field and not term.negated
            for value in term.values
            if isinstance(value, Pattern)
        )

    @property
    def changes_with_time(self) -> bool:
        """May an entry begin or cease to fit though nothing happens to it?"""
        return any(term.field in _AGES or term.field == 'state' for term in self.terms)

    def suffixes(self) -> tuple[str, ...]:
        """:return: the suffixes that entries of the wanted states have."""
        of_state = {'claimed': CLAIMED, 'preserved': PRESERVED}
        found: tuple[str, ...] = SUFFIXES
        for term in self.terms:
            if term.field == 'state' and not term.negated:
                wanted = {of_state.get(value.text, READY) for value in term.values if isinstance(value, Pattern)}  # fmt: skip
                found = tuple(suffix for suffix in found if suffix in wanted)
        return found

    def may_match_queue(self, queue: str) -> bool:
        """:return: False if nothing in a queue of this name can fit."""
        return all(term.matches_name(queue, '', READY, 0) for term in self.terms if term.field == 'queue')

    def matches_name(self, queue: str, filebase: str, suffix: str, now_ns: int) -> bool | None:
        """:return: whether the entry fits, by its name alone; None if it has to be opened."""
        unknown = False
        for term in self.terms:
            answer = term.matches_name(queue, filebase, suffix, now_ns)
            if answer is False:
                return False
            unknown |= answer is None
        return None if unknown else True

    def matches(self, entry: EntrySummary, now_ns: int) -> bool:
        """:return: whether an entry is one of them.  One whose content makes nonsense is not; it keeps no other from being found."""
        try:
            return all(term.matches(entry, now_ns) for term in self.terms)
        except Exception as error:
            log_event(log, logging.DEBUG, entry.filebase, 'not read', error=error)
            return False


def _words(text: str) -> Iterator[Term]:
    at = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if at >= len(text):
            return
        negated = text[at] == '-'
        start = at
        key, at = _scan(text, at + negated, ':')
        if at >= len(text) or text[at] != ':':
            word = text[start:at]
            raise SelectionError(
                f'{word!r} is no field:value; quotes hold a value with blanks together, and a text in the error is `match:{word}`'
            )
        name = key.text
        if not name:
            raise SelectionError(f'{text[start : at + 1]!r} names no field')
        values = []
        while True:
            value, at = _scan(text, at + 1, ',')
            values.append(value)
            if at >= len(text) or text[at] != ',':
                break
        yield Term.make(name, *values, negated=negated)


def _scan(text: str, at: int, end: str) -> tuple[Pattern, int]:
    """Read up to a blank or the character `end` outside of quotes.

    :return: the text read, and where it ends.
    """
    pieces, piece = [], ''
    in_quotes = False
    while at < len(text):
        char = text[at]
        if char == '\\' and at + 1 < len(text):
            piece += text[at + 1]
            at += 2
            continue
        if char == '"':
            in_quotes = not in_quotes
        elif not in_quotes and (char == end or char.isspace()):
            break
        elif char == '*':
            pieces.append(piece)
            piece = ''
        else:
            piece += char
        at += 1
    if in_quotes:
        raise SelectionError('a quote is not closed')
    return Pattern((*pieces, piece)), at


class Budget:
    """The cost that a look may have: it ends early when that is spent, and has found fewer entries than there are by then.

    :param seconds: the time.
    :param opened: how many files may be opened.
    """

    def __init__(self, seconds: float, opened: int = 20_000) -> None:
        self._until_s = time.monotonic() + seconds
        self._left = opened
        self.names = 0
        self.is_spent = False

    def allows_name(self) -> bool:
        """:return: whether one more name may be looked at."""
        self.names += 1
        # The clock is asked now and then: asking costs as much as a name.
        if self.names % 64 == 0 and time.monotonic() > self._until_s:
            self.is_spent = True
        return not self.is_spent

    def allows_file(self) -> bool:
        """:return: whether one more file may be opened."""
        self._left -= 1
        if self._left < 0 or time.monotonic() > self._until_s:
            self.is_spent = True
        return not self.is_spent


def select(
    queue_folders: Iterable[tuple[str, Folder]],
    selection: Selection,
    now_ns: int,
    budget: Budget | None = None,
) -> Iterator[FoundEntry]:
    """Walk over the entries of some queues that are asked for, in no order.

    A file is opened only if its name does not decide; the summary read then goes with the found entry.

    :param budget: where to end; it says whether that came before the end of the queues.
    """
    for queue, folder in queue_folders:
        if not selection.may_match_queue(queue):
            continue
        for filebase, suffix in walk_entries(folder, selection.suffixes()):
            if budget is not None and not budget.allows_name():
                return
            answer = selection.matches_name(queue, filebase, suffix, now_ns)
            if answer is None and budget is not None and not budget.allows_file():
                return
            if answer is None:
                found = FoundEntry(queue, folder, filebase, suffix)
                entry = found.look()
                if entry is not None and selection.matches(entry, now_ns):
                    yield found._replace(suffix=entry.suffix, summary=entry)
            elif answer:
                yield FoundEntry(queue, folder, filebase, suffix)
