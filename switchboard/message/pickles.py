"""Pickle, and Mailman's queue files, for queues that say so; read by an unpickler that makes listed classes only.

A pickle is a program.  It is read here with every name looked up in a list: the classes that the queue's
``pickle_classes`` name, and for Mailman's files those that a mail is made of.  A function is never
called, and a class that is not listed is never imported.  A listed class is trusted: its pickles may
call it with any arguments.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from importlib import import_module
from operator import attrgetter
from typing import Any

from zope.interface import implementer

from switchboard.errors import ConfigError, CorruptEntryError, UnserializableError
from switchboard.interfaces import ISerializer


def _listed(names: Sequence[str]) -> dict[tuple[str, str], str]:
    listed = {}
    for name in names:
        module, colon, qualified = name.partition(':')
        if not colon or not module or not qualified:
            raise ConfigError(f'{name!r}: write a class as package.module:Class', key='pickle_classes')
        listed[module, qualified] = name
    return listed


# What the mails and the metadata of Mailman's queues are made of.
_MAIL_CLASSES = _listed(
    (
        *('email.message:Message', 'email.message:EmailMessage', 'email.policy:EmailPolicy'),
        *('email._policybase:Compat32', 'email.headerregistry:HeaderRegistry'),
        *('email.charset:Charset', 'email.header:Header'),
        *('datetime:datetime', 'datetime:date', 'datetime:time', 'datetime:timedelta', 'datetime:timezone'),
        *('builtins:set', 'builtins:frozenset'),
    )
)
# As protocol 2 calls them.
_MAIL_CLASSES |= {('__builtin__', name): f'builtins:{name}' for name in ('set', 'frozenset')}
# Subclasses of a mail are read as the standard library's own: what makes them special is no part of a queue file, or is among the attributes.
_MAIL_CLASSES |= dict.fromkeys(
    _listed(
        (
            'mailman.email.message:Message',
            'mailman.email.message:UserNotification',
            'mailman.email.message:OwnerNotification',
            'mailman.email.message:MultipartDigestMessage',
            'email.mime.base:MIMEBase',
            'email.mime.message:MIMEMessage',
            'email.mime.multipart:MIMEMultipart',
            'email.mime.nonmultipart:MIMENonMultipart',
            'email.mime.text:MIMEText',
            'mailbox:MMDFMessage',
            'mailbox:mboxMessage',
        )
    ),
    'email.message:Message',
)


class RestrictedUnpickler(pickle.Unpickler):
    """Makes instances of listed classes, and plain values, and nothing else."""

    def __init__(self, file: io.BytesIO, listed: Mapping[tuple[str, str], str]) -> None:
        super().__init__(file)
        self._listed = listed

    def find_class(self, module: str, name: str) -> Any:
        """:raises pickle.UnpicklingError: the name is not listed, or leads to no class."""
        target = self._listed.get((module, name))
        if target is None:
            raise pickle.UnpicklingError(f'{module}:{name} is not among the listed classes')
        module, _, name = target.partition(':')
        found = attrgetter(name)(import_module(module))
        if not isinstance(found, type):
            raise pickle.UnpicklingError(f'{target} is not a class')
        return found

    def persistent_load(self, pid: Any) -> Any:
        """:raises pickle.UnpicklingError: always."""
        raise pickle.UnpicklingError('persistent references are not read')


def _load(file: io.BytesIO, listed: Mapping[tuple[str, str], str], what: str) -> Any:
    try:
        return RestrictedUnpickler(file, listed).load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise CorruptEntryError(f'{what}: {error}') from error


@implementer(ISerializer)
class PickleSerializer:
    """Values of listed classes, as a pickle.

    :param classes: ``package.module:Class`` names.
    """

    kind = 'pickle'

    def __init__(self, classes: Sequence[str] = ()) -> None:
        self._listed = _listed(classes)

    def dumps(self, msg: Any) -> bytes:
        """A pickle is read back before it is stored: an unreadable one must not be accepted."""
        try:
            body = pickle.dumps(msg, protocol=4)
            self.loads(body)
        except Exception as error:  # __reduce__ and __setstate__ are the user's code
            raise UnserializableError(
                f'a message of type {type(msg).__name__} cannot be pickled here: {error}'
            ) from error
        return body

    def loads(self, body: bytes) -> Any:
        return _load(io.BytesIO(body), self._listed, 'pickle')


@implementer(ISerializer)
class MailmanSerializer:
    """The queue files of GNU Mailman: the pickle of a message followed by that of its metadata, without a header.

    They are read, so that an installation can move over with its queues; nothing is written so.
    """

    kind = 'mailman'

    def __init__(self, classes: Sequence[str] = ()) -> None:
        self._listed = {**_MAIL_CLASSES, **_listed(classes)}

    def dumps(self, msg: Any) -> bytes:
        raise UnserializableError("Mailman's queue files are read, not written: enqueue the mail itself")

    def loads(self, body: bytes) -> Any:
        return self.loads_both(body)[0]

    def loads_both(self, content: bytes) -> tuple[Any, dict[str, Any]]:
        """:return: the message and its metadata."""
        file = io.BytesIO(content)
        msg = _load(file, self._listed, 'message pickle')
        metadata = _load(file, self._listed, 'metadata pickle')
        if not isinstance(metadata, dict):
            raise CorruptEntryError('metadata pickle: not a dictionary')
        if metadata.get('_parsemsg') and isinstance(msg, str | bytes):
            import email

            msg = email.message_from_string(msg) if isinstance(msg, str) else email.message_from_bytes(msg)
        return msg, metadata
