"""A mail as the bytes it was parsed from, written anew only where it was touched.

The library's generator writes each field, line and boundary anew: a blank line before a boundary, white space around a colon, bare
carriage returns and the folding of signed fields do not survive it, and signatures (DKIM, PGP) break.  So a mail that is parsed
here keeps, in each of its parts, where in the original bytes the part stands.  When it is written, a part's fields and its content
are compared with what the original says: equal parts are copied, changed ones are written.  Nothing has to notice a change when
it is made, so nothing can miss one.

Lines end at CR LF, CR and LF, as for the parser, and nowhere else: `str.splitlines` knows eight more ends, and a form feed in a
subject would start a new field.  A class of a program's own is written from its fields, whatever it overrides.

Rejected: the library for whatever is not plain.  Its generator splits lines its own way, and asks methods of the mail's class.
"""

from __future__ import annotations

import base64
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from email._policybase import Compat32, Policy, compat32
from email.feedparser import BufferedSubFile, FeedParser  # type: ignore[attr-defined]  # not in the stubs
from email.header import Header
from email.message import EmailMessage, Message
from typing import Any

# What RFC 5322 allows in a line, less the colon and the blank.
MAX_LINE_CHARACTERS = 996

_LINE_END = re.compile(r'\r\n|\r|\n')
_LINE = re.compile(rb'[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+')
# What ends a line for `str.splitlines`, which the library uses, and for no mail server.
_STRANGE_ENDS = re.compile('[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]')
# The end of a line and an empty line.
_EMPTY_LINES = (b'\n\n', b'\n\r\n', b'\n\r', b'\r\r', b'\r\r\n')
_NAME = re.compile(r'[!-9;-~]+')
_BLANKS = (' ', '\t')
# A field, as old mails write it, and no line of a mailbox.
_FROM_FIELD = re.compile(r'From[ \t]+:')
# So many bytes make an encoded word of at most 75 characters.
_WORD_BYTES = 45

# The attribute of a mail that holds its `_Source`.
SOURCE = '_source'
_UNPARSED = object()
# The modules of the classes that override none of the library's methods, or to no other end.
_WITH_LIBRARYS_METHODS = ('email.', 'switchboard.message.')


class _Source:
    """The place of a mail, or of a part of one, in the bytes that it was parsed from, and its headers there.

    :param is_part: its last line end belongs to the boundary behind it.
    :param kept_bytes: the length of the empty line behind its first line, a ``From `` line that the parser gave back from above that empty line.
    """

    __slots__ = (
        'body_start',
        'end',
        'from_line',
        'headers',
        'is_part',
        'kept_bytes',
        'payload',
        'raw',
        'rest',
        'start',
    )

    def __init__(self, raw: bytes, start: int, *, is_part: bool, kept_bytes: int = 0) -> None:
        self.raw = raw
        self.start = start
        self.is_part = is_part
        self.kept_bytes = kept_bytes
        self.body_start = self.end = len(raw)
        # The text, or the parts; and what else decides the bytes between those.
        self.payload: Any = None
        self.rest: tuple[Any, ...] = ()
        self.headers: list[tuple[str, Any]] = []
        self.from_line: str | None = None

    def snapshot(self, mail: Message) -> None:
        self.headers = mail._headers.copy()  # type: ignore[attr-defined]  # not in the stubs
        self.from_line = mail._unixfrom  # type: ignore[attr-defined]  # not in the stubs
        payload = mail._payload  # type: ignore[attr-defined]  # not in the stubs
        self.payload = tuple(payload) if type(payload) is list else payload
        self.rest = _rest(_plain(mail))

    def of_whole(self, raw: bytes) -> _Source:
        """:return: the same for the mail of which only the header was parsed."""
        source = _Source(raw, self.start, is_part=False)
        source.body_start = self.body_start
        source.headers, source.from_line = self.headers, self.from_line
        return source

    def is_same(self, mail: Message) -> bool:
        """Is the content what it was?"""
        payload = mail.__dict__.get('_payload', _UNPARSED)
        if payload is _UNPARSED:
            return True
        if type(payload) is not list:
            return bool(payload == self.payload) and type(payload) is type(self.payload)
        before = self.payload
        return (
            type(before) is tuple
            and len(before) == len(payload)
            and all(one is other for one, other in zip(before, payload, strict=True))
            and self.rest == _rest(mail)
        )


def _rest(mail: Message) -> tuple[Any, ...]:
    if type(mail._payload) is not list:  # type: ignore[attr-defined]  # not in the stubs
        return ()
    kind = mail.get_content_type()
    return kind, mail.get_boundary(), mail.preamble, mail.epilogue


class _FieldLine(str):
    """A line of a header that is a field, though it begins as a line of a mailbox does."""

    __slots__ = ()

    def startswith(self, *arguments: Any) -> bool:
        """See `str.startswith`; the parser asks for a line of a mailbox."""
        return arguments != ('From ',) and super().startswith(*arguments)


class _Counted(BufferedSubFile):  # type: ignore[misc]  # its stub is Any
    """Counts the characters that were read; each is one byte of the mail."""

    position = 0
    # How many characters behind the line that was given back last have been read before it was.
    read_before = 0

    def readline(self) -> Any:
        line = super().readline()
        if isinstance(line, str):
            self.position += len(line)
            self.read_before = 0
        return line

    def unreadline(self, line: str) -> None:
        self.position -= len(line)
        super().unreadline(line)


class _Parser(FeedParser):
    """The library's parser, which notes where each part begins and ends."""

    _cur: Message | None

    def __init__(self, raw: bytes, factory: Callable[..., Message], policy: Policy[Any]) -> None:
        super().__init__(factory, policy=policy)
        self._raw = raw
        self._input = _Counted()
        self._found: list[Message] = []

    def _new_message(self) -> None:
        above: Message | None = self._cur
        is_part = above is not None and (
            above.__dict__[SOURCE].is_part or _plain(above).get_content_maintype() == 'multipart'
        )
        super()._new_message()  # type: ignore[misc]  # not in the stubs
        mail = self._cur
        assert mail is not None
        kept = self._input.read_before
        start = self._input.position - kept
        mail.__dict__[SOURCE] = _Source(self._raw, start, is_part=is_part, kept_bytes=kept)
        self._found.append(mail)

    def _parse_headers(self, lines: list[str]) -> None:
        position = self._input.position
        lines = [_FieldLine(line) if _FROM_FIELD.match(line) else line for line in lines]
        super()._parse_headers(lines)  # type: ignore[misc]  # not in the stubs
        assert self._cur is not None
        source: _Source = self._cur.__dict__[SOURCE]
        # The parser may give a last line that begins with "From " back, to the content, behind an empty line that it keeps.
        is_whole = position == self._input.position
        read = source.kept_bytes + sum(map(len, lines[:-1]))
        source.body_start = position if is_whole else source.start + read
        if not is_whole:
            self._input.read_before = position - source.body_start - len(lines[-1])

    def _pop_message(self) -> Message:
        mail: Message = super()._pop_message()  # type: ignore[misc]  # not in the stubs
        mail.__dict__[SOURCE].end = self._input.position
        return mail

    def parsed(self) -> Message:
        self.feed(self._raw.decode('ascii', 'surrogateescape'))
        mail = self.close()
        for each in self._found:
            # At the end, because the parser takes the last line end of a part off when it has seen what follows.
            each.__dict__[SOURCE].snapshot(each)
        return mail


def parse_mail(raw: bytes, cls: type[Message] = Message, policy: Policy[Any] = compat32) -> Message:
    """Parse a mail that :func:`flatten` can write as it was.

    :param cls: the class of the mail and of its parts; where it cannot be made without arguments of its own, its ``__init__`` is left out.
    """

    def make(policy: Policy[Any] = policy) -> Message:
        for keys in ({'policy': policy}, {}):
            with suppress(TypeError):  # it takes other arguments
                return cls(**keys)
        mail = cls.__new__(cls)
        Message.__init__(mail, policy)
        return mail

    return _Parser(raw, make, policy).parsed()


def flatten(mail: Message, *, unixfrom: bool = False) -> bytes:
    """Write a mail as it stands.

    :param unixfrom: with its ``From `` line.
    :raises Exception: a field or a payload cannot be written.
    """
    source = mail.__dict__.get(SOURCE)
    eol = _line_end(source.raw) if isinstance(source, _Source) else b'\n'
    return _written(mail, eol, unixfrom=unixfrom)


def _line_end(raw: bytes) -> bytes:
    end = raw.find(b'\n')
    return b'\r\n' if end > 0 and raw[end - 1 : end] == b'\r' else b'\n'


def _plain(mail: Message) -> Message:
    """:return: the mail, as an object of the library's own class: what a class of a program's overrides is not asked."""
    cls = type(mail)
    if cls.__module__.startswith(_WITH_LIBRARYS_METHODS):
        return mail
    if '_headers' not in mail.__dict__:
        getattr(mail, '_headers')  # noqa: B009 - it parses itself
    plain_class: type[Message] = EmailMessage if isinstance(mail, EmailMessage) else Message
    plain = object.__new__(plain_class)
    plain.__dict__ = mail.__dict__
    return plain


def _written(mail: Message, eol: bytes, *, unixfrom: bool = False) -> bytes:
    mail = _plain(mail)
    source = mail.__dict__.get(SOURCE)
    if not isinstance(source, _Source):
        body = _body(mail, eol)  # first: a boundary may have to be chosen for it
        return _head(mail, eol, unixfrom=unixfrom) + body
    if source.is_same(mail):
        pieces = _body_as_it_was(mail, source, eol)
    else:
        pieces = [_body(mail, eol), _tail(source, eol)]
    body = b''.join(pieces)
    return _head_of_source(mail, source, eol, body, unixfrom=unixfrom) + body


def _body_as_it_was(mail: Message, source: _Source, eol: bytes) -> list[bytes]:
    if type(mail.__dict__.get('_payload')) is not list:
        return [source.raw[source.body_start : source.end]]
    pieces: list[bytes] = []
    position = source.body_start
    for part in source.payload:
        at: _Source = part.__dict__[SOURCE]
        between = source.raw[position : at.start]
        written = _written(part, eol, unixfrom=part._unixfrom is not None)
        if written and between and not between.endswith((b'\n', b'\r')):
            between += eol  # a last boundary without a line end
        if not written and at.start < at.end:
            written = eol  # between two boundaries there would be no part
        pieces += between, written
        position = at.end
    pieces.append(source.raw[position : source.end])
    return pieces


def _tail(source: _Source, eol: bytes) -> bytes:
    """:return: the line end behind a part, which belongs to the boundary that follows."""
    if not source.is_part:
        return b''
    end = source.raw[source.body_start : source.end][-2:]
    return end[len(_without_end(end)) :] or eol


def _head(mail: Message, eol: bytes, *, unixfrom: bool) -> bytes:
    end = eol.decode('ascii')
    pieces = [_from_line(mail, eol).decode('latin-1')] if unixfrom else []
    for name, value in mail._headers:  # type: ignore[attr-defined]  # not in the stubs
        # Nearly all: a printable value has no line end in it.
        if (
            type(value) is str
            and value.isascii()
            and value.isprintable()
            and len(name) + len(value) <= MAX_LINE_CHARACTERS
            and _NAME.fullmatch(name)
        ):
            pieces.append(f'{name}: {value}{end}')
        else:
            pieces.append(_field(name, value, mail.policy, eol).decode('latin-1'))
    pieces.append(end)
    return ''.join(pieces).encode('latin-1')


def _from_line(mail: Message, eol: bytes) -> bytes:
    line = mail._unixfrom or f'From nobody {time.ctime()}'  # type: ignore[attr-defined]  # not in the stubs
    return ' '.join(_LINE_END.split(line)).rstrip().encode('ascii', 'surrogateescape') + eol


def _head_of_source(mail: Message, source: _Source, eol: bytes, body: bytes, *, unixfrom: bool) -> bytes:
    block = source.raw[source.start : source.body_start]
    line = mail._unixfrom  # type: ignore[attr-defined]  # not in the stubs
    is_ended = not body or _ends_header_as_before(body, source)
    if (
        (is_ended or (block.endswith(_EMPTY_LINES) and not source.kept_bytes))
        and mail._headers == source.headers  # type: ignore[attr-defined]  # not in the stubs
        and line == source.from_line
        and unixfrom == (line is not None)
    ):
        return block
    before, fields, separator = _take_apart(block, mail.policy, source.kept_bytes)
    if (
        not before.startswith(b'From ')
        or not unixfrom
        or line is None
        or _first_line(before) != line.rstrip('\r\n')
    ):
        if before.startswith(b'From '):
            # An empty line that was behind it ends the header above.
            before = before[len(_LINE.match(before)[0]) :]  # type: ignore[index]  # it matches any text
        if unixfrom:
            before = _from_line(mail, eol) + before
    pieces = [before, *_fields_of_source(mail, fields, eol)]
    # A last line without an end is one only as long as nothing follows.
    head = b''.join(
        piece if not piece or piece.endswith((b'\n', b'\r')) else piece + eol for piece in pieces[:-1]
    )
    last = pieces[-1]
    if (separator or body) and last and not last.endswith((b'\n', b'\r')):
        last += eol
    if not separator and not is_ended:
        separator = eol
    if separator.startswith(b'\n') and (head + last).endswith(b'\r'):
        separator = b'\r'  # the two would be one line end, and the first line of the body a field
    return head + last + separator


def _ends_header_as_before(body: bytes, source: _Source) -> bool:
    """:return: whether the lines of a content that end the header above it, where no empty line does, are those that were there."""
    now, before = _LINE.finditer(body), _LINE.finditer(source.raw, source.body_start, source.end)
    while True:
        line, old_line = (
            found[0].rstrip(b'\r\n') if found else None for found in (next(now, None), next(before, None))
        )
        if line is None or line != old_line:
            return line == old_line
        # A line of a mailbox alone does not: what follows decides.
        if not line.startswith(b'From '):
            return True


def _fields_of_source(mail: Message, fields: list[tuple[tuple[str, str], bytes]], eol: bytes) -> list[bytes]:
    """Write the fields of a part: those that were there as they were, each of several equal ones by its place."""
    headers = mail._headers  # type: ignore[attr-defined]  # not in the stubs
    same_before = _number_equal(headers, fields)
    same_behind = _number_equal(headers[same_before:][::-1], fields[same_before:][::-1])
    changed = headers[same_before : len(headers) - same_behind]
    waiting: dict[tuple[str, str], list[bytes]] = {}
    for key, written in reversed(fields[same_before : len(fields) - same_behind]):
        waiting.setdefault(key, []).append(written)
    pieces = [written for _, written in fields[:same_before]]
    for name, value in changed:
        same = waiting.get((name, value)) if isinstance(value, str) else None
        pieces.append(same.pop() if same else _field(name, value, mail.policy, eol))
    return pieces + [written for _, written in fields[len(fields) - same_behind :]]


def _number_equal(headers: list[tuple[str, Any]], fields: list[tuple[tuple[str, str], bytes]]) -> int:
    number = 0
    for (name, value), (key, _) in zip(headers, fields, strict=False):
        if not isinstance(value, str) or (name, value) != key:
            break
        number += 1
    return number


def _first_line(block: bytes) -> str:
    found = _LINE.match(block)
    return found[0].rstrip(b'\r\n').decode('ascii', 'surrogateescape') if found else ''


def _take_apart(
    block: bytes, policy: Policy[Any], kept_bytes: int
) -> tuple[bytes, list[tuple[tuple[str, str], bytes]], bytes]:
    """Take the header of a part apart as the parser does.

    :return: the bytes before the first field; by name and value, the bytes of each, with those behind it that are
        none; and the empty line.
    """
    before: list[bytes] = []
    groups: list[tuple[list[str], list[bytes]]] = []
    separator = b''
    begins = 0
    if kept_bytes and (first := _LINE.match(block)):
        begins = first.end() + kept_bytes
        before.append(block[:begins])
    for found in _LINE.finditer(block, begins):
        line = found[0]
        if line in (b'\n', b'\r\n', b'\r'):
            separator = line
            break
        text = line.decode('ascii', 'surrogateescape')
        is_from_line = text.startswith('From ') and not _FROM_FIELD.match(text)
        starts_field = text[0] not in _BLANKS and not is_from_line and text.find(':') > 0
        if starts_field:
            groups.append(([text], [line]))
        elif not groups:
            before.append(line)
        else:
            lines, written = groups[-1]
            written.append(line)
            if text[0] in _BLANKS and len(lines) == len(written) - 1:
                lines.append(text)
    fields = []
    for lines, written in groups:
        name, value = policy.header_source_parse(lines)
        fields.append(((name, value), b''.join(written)))
    return b''.join(before), fields, separator


def _field(name: str, value: Any, policy: Policy[Any], eol: bytes) -> bytes:
    """Write a field anew; no part of its value becomes another."""
    if not _NAME.fullmatch(name):
        raise ValueError(f'{name[:100]!r} cannot be the name of a header field')
    if isinstance(value, str) and not hasattr(value, 'fold'):
        text: str | None = value
    elif isinstance(value, Header):
        text = str(value)
        text = text if _STRANGE_ENDS.search(text) else None
    else:
        text = None
    if text is not None and (text.isascii() or _has_bytes(text)):
        return _as_it_stands(name, text, eol)
    if text is not None and _STRANGE_ENDS.search(text):
        return f'{name}: {_encoded_words(text)}'.encode('ascii').replace(b'\n', eol) + eol
    # Not folded anew, except where the policy knows no other way.
    keys: dict[str, Any] = (
        {'linesep': '\n'} if isinstance(policy, Compat32) else {'linesep': '\n', 'refold_source': 'none'}
    )
    folding = policy.clone(**keys)
    return _LINE_END_BYTES.sub(eol, folding.fold_binary(name, value))


_LINE_END_BYTES = re.compile(rb'\r\n|\r|\n')


def _has_bytes(text: str) -> bool:
    """Does a text hold bytes that the parser could not decode?"""
    try:
        text.encode('ascii', 'surrogateescape')
    except UnicodeEncodeError:
        return False
    return True


def _as_it_stands(name: str, value: str, eol: bytes) -> bytes:
    lines = [f'{name}: {value}'] if value.isprintable() else _LINE_END.split(f'{name}: {value}')
    folded: list[str] = []
    for number, line in enumerate(lines):
        if number and not line.strip(' \t'):
            continue  # it would end the header
        folded += _folded(line if not number or line[:1] in _BLANKS else ' ' + line)
    return eol.join(line.encode('ascii', 'surrogateescape') for line in folded) + eol


def _folded(line: str) -> Iterator[str]:
    """Break a line that no mail server takes, at a blank where there is one."""
    while len(line) > MAX_LINE_CHARACTERS + 2:
        at = max(line.rfind(' ', 1, MAX_LINE_CHARACTERS), line.rfind('\t', 1, MAX_LINE_CHARACTERS))
        if at <= 0 or not line[:at].strip(' \t') or line[:at].endswith(':'):
            at = next(
                (place for place in map(line.find, _BLANKS, (MAX_LINE_CHARACTERS,) * 2) if place > 0), -1
            )
            if at < 0:
                break
        yield line[:at]
        line = line[at:]
    yield line


def _encoded_words(text: str) -> str:
    words = []
    word = b''
    for char in text:
        encoded = char.encode('utf-8', 'replace')
        if len(word) + len(encoded) > _WORD_BYTES:
            words.append(word)
            word = b''
        word += encoded
    words.append(word)
    return '\n '.join(f'=?utf-8?b?{base64.b64encode(word).decode("ascii")}?=' for word in words)


def _body(mail: Message, eol: bytes) -> bytes:
    """Write the content of a mail anew."""
    payload = mail._payload  # type: ignore[attr-defined]  # not in the stubs
    if isinstance(payload, str) and eol == b'\n' and '\r' not in payload:
        return payload.encode('ascii', 'surrogateescape')  # of whatever kind it is
    main = mail.get_content_maintype()
    if payload is None:
        payload = [] if main == 'multipart' else ''
    if isinstance(payload, str):
        return payload.encode('ascii', 'surrogateescape') if main == 'multipart' else _text(payload, eol)
    if not isinstance(payload, list) or main not in ('multipart', 'message'):
        raise TypeError(f'string payload expected: {type(payload)}')
    if not all(isinstance(part, Message) for part in payload):
        raise TypeError('a part of a mail is no mail')
    if main == 'multipart':
        return _parts(mail, payload, eol)
    if mail.get_content_type() == 'message/delivery-status':
        return eol.join(_block(part, eol) for part in payload)
    return _whole(payload[0], eol) if payload else b''


def _text(text: str, eol: bytes) -> bytes:
    end = eol.decode('ascii')
    if '\r' in text or end != '\n':
        text = _LINE_END.sub(end, text)
    return text.encode('ascii', 'surrogateescape')


def _without_end(written: bytes) -> bytes:
    if written.endswith(b'\r\n'):
        return written[:-2]
    return written[:-1] if written.endswith((b'\n', b'\r')) else written


def _block(part: Message, eol: bytes) -> bytes:
    """Write a group of fields of a report without the empty line that divides it from the next."""
    written = _written(part, eol)
    return written.rstrip(b'\r\n') + eol if SOURCE in part.__dict__ else _without_end(written)


def _whole(part: Message, eol: bytes) -> bytes:
    """Write a part without the line end that belonged to the boundary behind it."""
    source = part.__dict__.get(SOURCE)
    if not isinstance(source, _Source):
        return _written(part, eol)
    written = _written(part, eol, unixfrom=part._unixfrom is not None)  # type: ignore[attr-defined]  # not in the stubs
    return _without_end(written) if source.is_part else written


def _parts(mail: Message, parts: list[Message], eol: bytes) -> bytes:
    written = [_whole(part, eol) for part in parts]
    boundary = mail.get_boundary()
    if boundary is None:
        boundary = _new_boundary(written)
        mail.set_boundary(boundary)
    mark = b'--' + boundary.encode('ascii', 'surrogateescape')
    preamble = '' if mail.preamble is None else mail.preamble
    pieces = [_text(preamble, eol) + eol] if mail.preamble is not None else []
    pieces.append(mark + eol + (eol + mark + eol).join(written) + eol + mark + b'--' + eol)
    if mail.epilogue is not None:
        pieces.append(_text(mail.epilogue, eol))
    return b''.join(pieces)


def _new_boundary(written: list[bytes]) -> str:
    while True:
        boundary = f'==============={random.randrange(sys.maxsize):019}=='
        if not any(boundary.encode('ascii') in part for part in written):
            return boundary
