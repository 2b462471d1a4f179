"""The request to `bin/drop`: its arguments, and the spool that is meant.

``argparse`` and ``getopt`` are not used: loading them takes longer than delivering the mail.
"""

from __future__ import annotations

import os

from switchboard.drop_errors import ConfigError, SwitchboardError
from switchboard.message.mail_envelope import decode_argument
from switchboard.message.naming import HIGHEST_PRIORITY, check_queue_name
from switchboard.store.disk import OPEN_FLAGS, Disk

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

USAGE = (
    'usage: drop QUEUE [-s SPOOL | -C CONFIG] [-f SENDER] [-r RECIPIENT]... [-m KEY=VALUE]... '
    '[-d content|message-id] [RECIPIENT]...'
)

SPOOL_VARIABLE, CONFIG_VARIABLE = b'SWITCHBOARD_SPOOL', b'SWITCHBOARD_CONFIG'
# In a checkout, and where an administrator puts it.
CHECKOUT_CONFIG, INSTALLED_CONFIG = 'etc/switchboard.cfg', '/etc/switchboard/switchboard.cfg'
MAX_CONFIG_BYTES = 16 * 1024 * 1024

_LONG = {
    '--spool': '-s',
    '--config': '-C',
    '--sender': '-f',
    '--recipient': '-r',
    '--metadata': '-m',
    '--dedupe': '-d',
}
DEDUPE_KINDS = ('content', 'message-id')
# Keys that say when, in seconds: they are used up, and become names and other keys.
_TIMES = ('delay', 'not_before', 'ttl')
# The seconds since the epoch at which a message is too old.
_EXPIRES = 'expires'
# Keys that are not taken from a caller begin so, and perhaps others; `message.metadata` knows, and says which key to give instead.
_DOUBTFUL = (
    *('_', 'version', 'queue_expires', 'delay_', 'not_before_', 'notbefore', 'ttl_', 'expires_'),
    *('orderkey', 'dedupekey', 'dedup_', 'deduplication'),
)


class UsageError(SwitchboardError):
    """The arguments make no sense."""


class DropRequest:
    """The request of a command line."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.queue = ''
        self.spool = ''
        self.config = ''
        self.dedupe = ''
        self.sender: str | None = None
        self.recipients: list[str] = []
        self.fields: dict[str, object] = {}
        self.times_s: dict[str, float] = {}
        self.priority: int | None = None
        self._read(list(arguments))
        if not self.queue:
            raise UsageError(USAGE)
        check_queue_name(self.queue)

    def _read(self, ahead: list[str]) -> None:
        ahead.reverse()
        plain = False
        while ahead:
            word = ahead.pop()
            if plain or word[:1] != '-':
                if self.queue:
                    self.recipients.append(decode_argument(word))
                else:
                    self.queue = decode_argument(word)
            elif word == '--':
                plain = True
            else:
                option, value = self._split(word)
                if value is None and not ahead:
                    raise UsageError(f'{option} needs a value; {USAGE}')
                self._take(option, ahead.pop() if value is None else value)

    def _split(self, word: str) -> tuple[str, str | None]:
        if word[:2] == '--':
            name, equals, value = word.partition('=')
            option = _LONG.get(name)
        else:
            option, value, equals = word[:2], word[2:], word[2:]
        if option is None or option not in _LONG.values():
            raise UsageError(f'there is no option {decode_argument(word)[:40]}; {USAGE}')
        return option, value if equals else None

    def _take(self, option: str, value: str) -> None:
        if option == '-s':
            self.spool = value
        elif option == '-C':
            self.config = value
        elif option == '-f':
            self.sender = decode_argument(value)
        elif option == '-d':
            if value not in DEDUPE_KINDS:
                raise UsageError(f'-d {decode_argument(value)[:40]}: write content or message-id')
            self.dedupe = value
        elif option == '-r':
            self.recipients.append(decode_argument(value))
        else:
            self._take_field(decode_argument(value))

    def _take_field(self, field: str) -> None:
        """The keys that have a meaning to the queue are numbers; all others are text."""
        key, equals, text = field.partition('=')
        if not equals or not key:
            raise UsageError(f'-m {field[:40]}: write KEY=VALUE')
        if key.startswith(_DOUBTFUL):
            from switchboard.message.metadata import find_key_mistake  # brings what writes JSON with it

            if mistake := find_key_mistake(key):
                raise UsageError(f'-m {mistake}')
        if key in _TIMES:
            self.times_s[key] = _number(key, text, 10**10)
        elif key == _EXPIRES:
            self.fields[key] = _number(key, text, 10**10)
        elif key == 'priority':
            self.fields[key] = self.priority = int(_number(key, text, HIGHEST_PRIORITY))
        else:
            self.fields[key] = text


def _number(key: str, text: str, highest: int) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= highest:
        raise UsageError(f'-m {key}={text[:40]}: not a number from 0 to {highest}')
    return number


def find_spool(request: DropRequest, environment: Mapping[bytes, bytes], root: str, disk: Disk) -> str:
    """Say which spool is meant: the one that is named, or that of the configuration that is.

    :raises ConfigError: the configuration does not say.
    """
    if request.spool:
        return request.spool
    if not request.config and environment.get(SPOOL_VARIABLE):
        return os.fsdecode(environment[SPOOL_VARIABLE])
    request.config = request.config or os.fsdecode(environment.get(CONFIG_VARIABLE, b''))
    if request.config:
        return _spool_of(request.config, disk)
    # The working directory is not searched: a mail server's may be one that strangers write into.
    request.config = f'{root}/{CHECKOUT_CONFIG}' if root else INSTALLED_CONFIG
    try:
        return _spool_of(request.config, disk)
    except FileNotFoundError as error:
        reason = 'is not there, and no other is named: give -C CONFIG or -s SPOOL'
        raise ConfigError(reason, file=request.config) from error


def _spool_of(path: str, disk: Disk) -> str:
    """Read one key of one section, by the rules of ``inifile``; all others are left to ``switchboard check``."""
    fd = disk.open(path, OPEN_FLAGS & ~os.O_NOFOLLOW)
    try:
        content = disk.read_all(fd, MAX_CONFIG_BYTES)
    except OSError as error:  # a directory, a pipe: an error by descriptor names no file
        raise ConfigError(f'cannot be read: {error.strerror}', file=path) from error
    finally:
        disk.close(fd)
    value = spool_value(content)
    if value is None:
        raise ConfigError('does not say where the spool is', file=path, section='switchboard', key='spool')
    return os.path.normpath(os.path.join(os.path.dirname(path), value))


def spool_value(content: bytes) -> str | None:
    """Find the value of ``spool`` in the section ``switchboard``, on the key's line or on the one that continues it."""
    section, indent = '', -1
    is_spool = False
    for raw in content.removeprefix(b'\xef\xbb\xbf').decode('utf-8', 'surrogateescape').split('\n'):
        text = raw.strip()
        own_indent = len(raw) - len(raw.lstrip())
        text = '' if text[:1] == '#' else _without_comment(text)
        if not text:
            continue
        if 0 <= indent < own_indent:
            if is_spool:
                return text
        elif text[0] == '[':
            section, indent, is_spool = text[1:-1].strip(), -1, False
        else:
            key, equals, value = text.partition('=')
            indent, is_spool = (
                own_indent,
                section == 'switchboard' and equals == '=' and key.rstrip() == 'spool',
            )
            if is_spool and value.strip():
                return value.strip()
    return None


def _without_comment(text: str) -> str:
    """See ``inifile``, which has a pattern for it; the module of patterns takes longer to load than `drop`'s work."""
    for at, char in enumerate(text):
        if char == ';' and (not at or (text[at - 1].isspace() and not text[at + 1 : at + 2].strip())):
            return text[:at].rstrip().replace('\\;', ';')
    return text.replace('\\;', ';')
