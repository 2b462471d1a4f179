"""Reading INI files so that every mistake can be reported with its file and line.

The standard library's ``configparser`` forgets line numbers, stops at the first duplicate, interpolates, and takes
a topic pattern such as ``#`` for a comment; so this is our own reader (``docs/decisions/0002-own-ini-reader.md``).
It knows nothing of what the keys mean.

Rules: ``[section]``, then ``key = value``.  A line that is indented deeper than its key goes on with the value.  A line
that starts with ``;`` or ``#`` is a comment, and so is what follows a blank, a ``;`` and a blank; ``\\;`` is a real
semicolon.  One exception: in a continued value, ``#`` followed by ``->`` with at most one word before it is a binding,
for ``#`` is a pattern there.  Names and keys are taken as they are written; nothing is replaced in values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from switchboard.errors import ConfigError, ConfigErrors
from switchboard.regular_file import open_regular_file

# Twice what 100,000 bindings take.  A larger file is no configuration, and reading it would only eat memory.
MAX_FILE_BYTES = 16 << 20
# More than anybody reads; a binary file taken for a configuration would fill the memory with its mistakes.
MAX_PROBLEMS = 100

_COMMENT = re.compile(r'(?<=\s);(?=\s|$)')
_HASH_BINDING = re.compile(r'#\S*\s*->')


class Option(NamedTuple):
    """One key with its value, which may go over many lines."""

    file: str
    section: str
    key: str
    line: int
    lines: Sequence[tuple[int, str]]

    @property
    def value(self) -> str:
        """The lines that are not empty, one under the other."""
        return '\n'.join(text for _, text in self.lines)

    def error(self, reason: str, line: int | None = None) -> ConfigError:
        """:return: an error at this key, or at one `line` of its value."""
        return ConfigError(reason, file=self.file, line=line or self.line, section=self.section, key=self.key)


class Section(NamedTuple):
    """One section: its options by key, in the order of the file."""

    file: str
    name: str
    line: int
    options: Mapping[str, Option]

    @property
    def subject(self) -> str:
        """The part of its name behind the point: the name of a queue, an exchange or a runner."""
        return self.name.partition('.')[2]

    def error(self, reason: str) -> ConfigError:
        """:return: an error about the section as a whole."""
        return ConfigError(reason, file=self.file, line=self.line, section=self.name)


class Problems:
    """The mistakes in a configuration (errors), and the merely strange things (warnings), each with its place."""

    def __init__(self) -> None:
        self.errors: list[ConfigError] = []
        self.warnings: list[ConfigError] = []

    @property
    def is_full(self) -> bool:
        """Nothing more is kept: a reader of a long list may stop."""
        return max(len(self.errors), len(self.warnings)) >= MAX_PROBLEMS

    def error(self, error: ConfigError) -> None:
        """Note an error."""
        _note(error, self.errors)

    def warn(self, warning: ConfigError) -> None:
        """Note a warning."""
        _note(warning, self.warnings)

    def raise_errors(self) -> None:
        """:raises ConfigErrors: there is at least one error; all are in it, by file and line."""
        if self.errors:
            raise ConfigErrors(in_order(self.errors), warnings=in_order(self.warnings))


def _note(problem: ConfigError, known: list[ConfigError]) -> None:
    # Once: a section may be for many queues.  Beyond a hundred they are not kept.
    if len(known) < MAX_PROBLEMS and str(problem) not in map(str, known):
        known.append(problem)


def in_order(problems: Iterable[ConfigError]) -> list[ConfigError]:
    """:return: the problems as an editor meets them: file by file, in the order in which the files were read."""
    files: dict[str | None, list[ConfigError]] = {}
    for problem in problems:
        files.setdefault(problem.file, []).append(problem)
    return [problem for found in files.values() for problem in sorted(found, key=lambda one: one.line or 0)]


def read_config_file(path: Path) -> bytes:
    """:raises ConfigError: the file cannot be read, is no regular file, or is larger than 16 MiB."""
    try:
        with open_regular_file(path) as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f'cannot be read: {getattr(error, "strerror", None) or error}', file=str(path)
        ) from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f'is larger than {MAX_FILE_BYTES >> 20} MiB', file=str(path))
    return content


def parse_ini(content: bytes, file: str, problems: Problems) -> list[Section]:
    """Take a file apart.

    :return: the readable sections; mistakes in the others are noted in `problems`.
    """
    reader = _Reader(file, problems)
    for number, line in enumerate(content.removeprefix(b'\xef\xbb\xbf').split(b'\n'), 1):
        reader.take(number, line)
    return list(reader.sections.values())


class _Reader:
    """The state while reading: the section and the value that a further line would belong to."""

    def __init__(self, file: str, problems: Problems) -> None:
        self.file = file
        self.problems = problems
        self.sections: dict[str, Section] = {}
        self._section: str | None = None
        self._options: dict[str, Option] | None = None
        self._value: list[tuple[int, str]] | None = None
        self._indent = 0

    def take(self, number: int, line: bytes) -> None:
        try:
            raw = line.decode('utf-8')
        except UnicodeDecodeError:
            self._error(number, 'is not UTF-8 text')
            return
        if '\0' in raw:
            self._error(number, 'holds a NUL character')
            return
        self._take_text(number, raw.strip(), len(raw) - len(raw.lstrip()))

    def _take_text(self, number: int, text: str, indent: int) -> None:
        value = self._value if indent > self._indent else None
        if text.startswith('#') and (value is None or not _HASH_BINDING.match(text)):
            return
        text = _without_comment(text)
        if not text:
            return
        if value is not None:
            value.append((number, text))
        elif text.startswith('['):
            self._open_section(number, text)
        else:
            self._open_key(number, text, indent)

    def _open_section(self, number: int, text: str) -> None:
        # The keys of a section that is wrong are read, for their own mistakes, and belong to nothing.
        self._value, self._options, self._section = None, {}, None
        name = text[1:-1].strip()
        if not text.endswith(']') or not name:
            self._error(number, f'{text[:60]!r} is no section; write [name]')
            return
        self._section = name
        if name in self.sections:
            self._error(number, f'was opened before, in line {self.sections[name].line}; put both into one')
            return
        self.sections[name] = Section(self.file, name, number, self._options)

    def _open_key(self, number: int, text: str, indent: int) -> None:
        # Set first: indented lines below a wrong line belong to it.
        self._value, self._indent = [], indent
        key, equals, value = (part.strip() for part in text.partition('='))
        if not equals or not key:
            self._error(number, f'{text[:60]!r} is neither a section nor a key; write `key = value`')
        elif self._options is None:
            self._error(number, 'stands before the first section', key)
        elif key in self._options:
            self._error(number, f'was set before, in line {self._options[key].line}', key)
        else:
            self._options[key] = Option(self.file, self._section or '', key, number, self._value)
        if value:
            self._value.append((number, value))

    def _error(self, number: int, reason: str, key: str | None = None) -> None:
        error = ConfigError(reason, file=self.file, line=number, section=self._section, key=key)
        self.problems.error(error)


def _without_comment(text: str) -> str:
    if text.startswith(';'):
        return ''
    comment = _COMMENT.search(text)
    if comment:
        text = text[: comment.start()].rstrip()
    return text.replace('\\;', ';')
