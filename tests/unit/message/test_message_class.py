"""Mails of a program's own class: whatever it overrides it can be stored, and it comes back as what it was."""

from __future__ import annotations

import copy
import email
import email.policy
import pickle
from email.message import EmailMessage, Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool, Switchboard
from switchboard.errors import ConfigError
from switchboard.message.mail import load_message_class, mail_bytes, mail_from_bytes
from switchboard.options import QueueOptions
from switchboard.testing import MemorySpool
from tests.helpers.configurations import load

RAW = b'From: ann@example.com\nSubject:  x\n\nbody\n'
CALLS: list[str] = []


class Post(Message):
    """As programs have them: with properties, with a state, and with methods of the library's overridden."""

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        self.original_size = 7

    @property
    def sender(self) -> str:
        return str(self['from'] or '')

    def as_bytes(self) -> bytes:
        CALLS.append('as_bytes')
        return b'of its own'

    def as_string(self, unixfrom: bool = False) -> str:
        return 'of its own'

    def strip(self) -> None:
        self._headers = [pair for pair in self._headers if pair[0] != 'Subject']

    def strip_in_place(self) -> None:
        self._headers.clear()

    def items(self) -> Any:
        raise NotImplementedError


class Modern(EmailMessage):
    @property
    def names(self) -> list[str]:
        return [address.addr_spec for address in self['from'].addresses]

    def as_bytes(self) -> bytes:
        raise NotImplementedError


class Notification(Message):
    """Cannot be made without arguments."""

    def __init__(self, recipient: str, subject: str) -> None:
        super().__init__()
        self['To'], self['Subject'] = recipient, subject
        self.recipients = {recipient}

    @property
    def receiver(self) -> str:
        return str(self['to'])


PATH = f'{__name__}:Post'


@pytest.fixture(
    params=['Switchboard', 'Spool', 'MemorySpool', 'class of [switchboard]', 'class of [queue.*]', 'path']
)
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == 'Switchboard':
        return Switchboard('in', tmp_path / 'in', message_class=Post)
    if request.param == 'path':
        return Switchboard('in', tmp_path / 'in', message_class=PATH)
    if request.param == 'Spool':
        return Spool(tmp_path / 'spool', message_class=Post)['in']
    if request.param == 'MemorySpool':
        return MemorySpool(options=QueueOptions(message_class=Post))['in']
    text = '[queue.in]\n'
    head = '[switchboard]\nspool = spool\n'
    if request.param == 'class of [switchboard]':
        head += f'message_class = {PATH}\n'
    else:
        text += f'message_class = {PATH}\n'
    return Spool.from_config(load(tmp_path, text, head=head))['in']


def make(cls: Any) -> Any:
    mail = cls()
    mail['From'] = 'ann@example.com'
    mail['Subject'] = 'x'
    mail.set_payload('body\n')
    return mail


def test_it_is_stored_from_its_fields_and_comes_back_as_its_class(queue: Any) -> None:
    CALLS.clear()
    msg, _ = queue.dequeue(queue.enqueue(make(Post)))
    assert isinstance(msg, Post)
    assert type(msg).__name__ == 'Post'
    assert '_headers' not in vars(msg)  # lazily parsed, as ever
    assert (msg.sender, msg['subject'], msg.get_payload(), msg.original_size) == (
        'ann@example.com',
        'x',
        'body\n',
        7,
    )
    assert msg.as_bytes() == b'of its own'
    assert CALLS == ['as_bytes']
    assert mail_bytes(msg) == b'From: ann@example.com\nSubject: x\n\nbody\n'


def test_a_mail_of_another_class_comes_back_as_the_one_that_is_named(queue: Any) -> None:
    for mail in (make(Message), make(EmailMessage), mail_from_bytes(RAW)):
        msg, _ = queue.dequeue(queue.enqueue(mail))
        assert isinstance(msg, Post)
        assert msg.sender == 'ann@example.com'


def test_without_a_name_it_comes_back_as_the_librarys_own(tmp_path: Path) -> None:
    queue = Switchboard('in', tmp_path / 'in')
    assert not isinstance(queue.dequeue(queue.enqueue(make(Post)))[0], Post)
    assert isinstance(queue.dequeue(queue.enqueue(make(Modern)))[0], EmailMessage)


def test_a_modern_one_too(tmp_path: Path) -> None:
    queue = Switchboard('in', tmp_path / 'in', message_class=Modern)
    for mail in (make(Modern), make(Post)):
        msg, _ = queue.dequeue(queue.enqueue(mail))
        assert isinstance(msg, Modern)
        assert msg.names == ['ann@example.com']


def test_parts_are_of_the_class_as_the_parser_makes_them() -> None:
    outer = MIMEMultipart()
    outer.attach(MIMEText('one'))
    mail = mail_from_bytes(mail_bytes(outer), cls=Post)
    assert isinstance(mail.get_payload(0), Post)
    assert mail_bytes(mail) == mail_bytes(outer)


@pytest.mark.parametrize('look', [lambda mail: mail.sender, lambda mail: mail.original_size, len, list, str])
def test_one_that_was_looked_at_is_byte_for_byte_what_it_was(look: Any) -> None:
    mail = mail_from_bytes(RAW, cls=Post)
    look(mail)
    assert mail_bytes(mail) == RAW


def test_what_a_method_of_its_own_changes_is_changed() -> None:
    mail: Any = mail_from_bytes(RAW, cls=Post)
    mail.strip()
    assert mail_bytes(mail) == b'From: ann@example.com\n\nbody\n'
    mail.strip_in_place()
    assert mail_bytes(mail) == b'\nbody\n'


@pytest.mark.parametrize('looked_at', [False, True])
@pytest.mark.parametrize(
    'duplicate', [copy.deepcopy, copy.copy, lambda mail: pickle.loads(pickle.dumps(mail))]
)
def test_a_copy_is_of_the_same_class(duplicate: Any, looked_at: bool) -> None:
    mail: Any = mail_from_bytes(RAW, cls=Post)
    if looked_at:
        assert mail.sender
    other = duplicate(mail)
    assert isinstance(other, Post)
    assert other.sender == 'ann@example.com'
    assert mail_bytes(other) == RAW


@pytest.mark.parametrize(
    'named', [int, 'nowhere:Post', f'{__name__}:Nothing', f'{__name__}:RAW', f'{__name__}', '']
)
def test_what_is_no_class_of_mails_is_a_mistake_in_the_configuration(named: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'cannot be imported|no subclass'):
        load_message_class(named)
    with pytest.raises(ConfigError):
        Switchboard('in', tmp_path / 'in', message_class=named)


def test_an_attribute_that_the_class_makes_up_is_had(tmp_path: Path) -> None:
    class Guessing(Message):
        def __getattr__(self, name: str) -> str:
            if name.startswith('guess_'):
                return name.removeprefix('guess_')
            raise AttributeError(name)

    mail: Any = mail_from_bytes(RAW, cls=Guessing)
    assert mail.guess_one == 'one'
    assert mail['from'] == 'ann@example.com'
    with pytest.raises(AttributeError, match='other'):
        _ = mail.other


def test_one_that_cannot_be_made_without_arguments_comes_back_without_its_init(tmp_path: Path) -> None:
    queue = Switchboard('in', str(tmp_path / 'in'), message_class=Notification)
    msg, _ = queue.dequeue(queue.enqueue(Notification('ann@example.com', 'x')))
    assert isinstance(msg, Notification)
    assert msg.receiver == 'ann@example.com'
    assert not hasattr(msg, 'recipients')


PARTS = (
    b'From: ann@example.com\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"\n\npreamble\n--b\n\ntext\n--b\n'
    b'Content-Type: message/rfc822\n\nSubject: inner\n\ninner text\n--b--\nepilogue'
)
# What makes an object, not what it does as a mail.
NOT_OF_A_MAIL = {
    '__class__',
    '__new__',
    '__init__',
    '__setattr__',
    '__getattribute__',
    '__implemented__',
    '__provides__',
}
METHODS = [
    (base, name)
    for base in (Message, EmailMessage)
    for name in sorted(dir(base))
    if callable(getattr(base, name)) and name not in NOT_OF_A_MAIL
]


@pytest.mark.parametrize(('base', 'name'), METHODS, ids=lambda value: getattr(value, '__name__', value))
def test_whatever_it_overrides_it_is_stored(base: type[Message], name: str) -> None:
    def refuse(self: Any, *args: Any, **keys: Any) -> Any:
        raise NotImplementedError(name)

    cls = type('Own', (base,), {})
    policy: Any = email.policy.default if base is EmailMessage else email.policy.compat32
    mail = email.message_from_bytes(PARTS, cls, policy=policy)
    setattr(cls, name, refuse)
    assert mail_bytes(mail) == PARTS
