"""Hands mails on to a mail server by SMTP: the last runner of many a pipeline.

::

    [runner.out]
    class = smtp
    queue = out
    host = smarthost.example.com
    port = 587
    tls = starttls
    user = switchboard
    password_file = /etc/switchboard/smtp-password

The envelope is in the metadata: ``sender`` (empty for a bounce) and ``recipients``.  The server answers for each recipient:

===========================  ==============================================================================================
the server                   the mail
===========================  ==============================================================================================
accepts all recipients       is finished
says 4xx for some            is tried again for these only, by the queue's retry policy
says 5xx for some            goes to bad for these only, with its answers, when nobody else waits for it
cannot be reached, refuses   stays as it is, like all others of the queue; the runner tries to reach the server again after a
us or our password           wait that grows, and writes nothing meanwhile
breaks off in the middle     is tried again by the retry policy, so that one mail that the server dies of does not stop the rest
===========================  ==============================================================================================

A connection is kept for the next mail.  Delivery is at least once: should this process die between the server's "250" and
the end of the entry, the mail is sent again.  Servers with DSN are given the entry's digest as ``ENVID``, which stays the same.

Rejected: finding the servers of the recipients' domains here (MX, TLS policies, per-domain limits: a mail server's work),
and going on to the next mail when the server is down (each would be tried, and written, for nothing).
"""

from __future__ import annotations

import logging
import os
import re
import smtplib
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from email.message import Message
from functools import partial
from typing import Any, ClassVar, NamedTuple

from switchboard import Runner
from switchboard.errors import ConfigError, DestinationDown, PermanentFailure, TemporaryFailure
from switchboard.runner.api import Setting, choice, count, duration_s, event, mail_bytes, optional

log = logging.getLogger('switchboard.runner')

PORTS = {'no': 25, 'starttls': 587, 'implicit': 465}
# A server that was just found to be down is not asked again for each mail of a batch.
DOWN_S = 0.4
# Of many recipients that were refused, so many answers are told in the reason; all are in the metadata.
TOLD = 5

_LINE_END = re.compile(rb'\r\n|\r|\n')
_FORBIDDEN = re.compile('[\x00-\x1f\x7f<>]')


class Answer(NamedTuple):
    """What a server said."""

    code: int
    text: str

    @classmethod
    def of(cls, code: int, text: bytes | str) -> Answer:
        """Read what ``smtplib`` gives.

        :raises SMTPServerDisconnected: the server says that it closes the connection, or talks nonsense.
        """
        answer = cls(code, text if isinstance(text, str) else text.decode('utf-8', 'replace'))
        if code == 421 or code < 200:
            raise smtplib.SMTPServerDisconnected(str(answer))
        return answer

    def __str__(self) -> str:
        return f'{self.code} {self.text}'.replace('\n', ' ')


class Lost(Exception):
    """The connection broke off."""


def wire_form(msg: Any) -> bytes:
    """:return: a mail as it goes over the wire, but for the dots.

    :raises PermanentFailure: it is no mail.
    """
    content = mail_bytes(msg) if isinstance(msg, Message) else msg
    if isinstance(content, str):
        content = content.encode('utf-8', 'surrogateescape')
    if not isinstance(content, bytes):
        raise PermanentFailure(f'a message of type {type(msg).__name__} is no mail')
    if content.startswith(b'From '):
        content = content.partition(b'\n')[2]
    # A bare CR or LF would be a line end to one server and none to the next, which is how mails are smuggled.
    return _LINE_END.sub(b'\r\n', content)


def addresses(msgdata: Mapping[str, Any], default_sender: str | None) -> tuple[str, list[str]]:
    """:return: the envelope's sender and recipients.

    :raises PermanentFailure: the metadata do not say.
    """
    sender = msgdata.get('sender', default_sender)
    recipients = msgdata.get('recipients')
    if isinstance(recipients, str):
        recipients = [recipients]
    if not isinstance(sender, str) or not isinstance(recipients, list) or not recipients:
        raise PermanentFailure('the metadata need a sender (perhaps empty) and a list of recipients')
    if not all(isinstance(one, str) for one in recipients):
        raise PermanentFailure('a recipient is no text')
    return sender, list(dict.fromkeys(recipients))


class Smtp(Runner):
    """Delivers what is in its queue to one server."""

    settings: ClassVar[Mapping[str, Setting]] = {
        'host': Setting(str, required=True),
        'port': Setting(count(1, 65535)),
        'tls': Setting(choice(*PORTS), default='no'),
        'tls_ca': Setting(),
        'user': Setting(),
        'password_file': Setting(),
        'hostname': Setting(default=''),
        'sender': Setting(),
        'connect_timeout': Setting(duration_s, default=30.0),
        'timeout': Setting(duration_s, default=300.0),
        'idle': Setting(duration_s, default=30.0),
        'mails_per_connection': Setting(optional(count(1)), default=100),
        'recipients_per_mail': Setting(count(1), default=50),
    }

    def setup(self) -> None:
        """See `Runner`."""
        setting = self.setting
        self._smtp: smtplib.SMTP | None = None
        self._sent = 0
        self._used_at_s = self._down_until_s = 0.0
        self._down = ''
        self._port = setting['port'] or PORTS[setting['tls']]
        self._password = self._read_password() if setting['user'] else ''
        try:
            self._tls = ssl.create_default_context(cafile=setting['tls_ca'])
        except OSError as error:
            raise ConfigError(
                f'cannot be used: {error}', section=f'runner.{self.name}', key='tls_ca'
            ) from error

    def _read_password(self) -> str:
        try:
            with open(self.setting['password_file'] or os.devnull, encoding='utf-8') as file:
                return file.readline().rstrip('\n')
        except (OSError, ValueError) as error:
            raise ConfigError(
                f'cannot be read: {error}', section=f'runner.{self.name}', key='password_file'
            ) from error

    def periodic(self) -> None:
        """Do not keep a server waiting that nobody has mails for."""
        if self._smtp is not None and time.monotonic() - self._used_at_s >= self.setting['idle']:
            self._close()

    def cleanup(self) -> None:
        """See `Runner`."""
        self._close()

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        """Deliver a mail to all who still wait for it."""
        sender, recipients = addresses(msgdata, self.setting['sender'])
        answers = self._deliver(sender, recipients, wire_form(msg))
        later = {one: answer for one, answer in answers.items() if answer.code // 100 not in (2, 5)}
        refused = {one: str(answer) for one, answer in answers.items() if answer.code // 100 == 5}
        for one, answer in answers.items():
            event(log, logging.INFO, self.filebase, 'answered', to=one, answer=answer)
        known = msgdata.pop('refused', {})
        refused = {**(known if isinstance(known, dict) else {}), **refused}
        if later:
            msgdata['recipients'] = list(later)
            if refused:
                msgdata['refused'] = refused
            raise TemporaryFailure(_told({one: str(answer) for one, answer in later.items()}))
        if refused:
            msgdata['recipients'] = list(refused)
            raise PermanentFailure(_told(refused))

    def _deliver(self, sender: str, recipients: Sequence[str], content: bytes) -> dict[str, Answer]:
        """:return: the answer for each recipient.

        :raises DestinationDown: the server cannot be had, and nobody has got the mail yet.
        """
        answers: dict[str, Answer] = {}
        size = self.setting['recipients_per_mail']
        for start in range(0, len(recipients), size):
            some = recipients[start : start + size]
            try:
                answers |= self._send(sender, some, content)
            except Lost as error:
                answers |= dict.fromkeys(some, Answer(451, f'4.4.2 {error}'))
            except DestinationDown as error:
                if not start:
                    raise
                answers |= dict.fromkeys(some, Answer(451, f'4.4.1 {error}'))
        return answers

    def _send(self, sender: str, recipients: Sequence[str], content: bytes) -> dict[str, Answer]:
        """:raises Lost: a fresh connection broke off."""
        if (smtp := self._reusable()) is not None:
            try:
                return self._transact(smtp, sender, recipients, content)
            except Lost as error:
                event(log, logging.INFO, self.filebase, 'connection lost', error=error)
        return self._transact(self._connect(), sender, recipients, content)

    def _transact(
        self, smtp: smtplib.SMTP, sender: str, recipients: Sequence[str], content: bytes
    ) -> dict[str, Answer]:
        """One mail for some recipients."""
        self._sent += 1
        try:
            return self._converse(smtp, sender, recipients, content)
        except (OSError, smtplib.SMTPException) as error:
            self._drop()
            raise Lost(f'the connection broke off: {error}') from error
        finally:
            self._used_at_s = time.monotonic()

    def _converse(
        self, smtp: smtplib.SMTP, sender: str, recipients: Sequence[str], content: bytes
    ) -> dict[str, Answer]:
        answers = {one: Answer(553, '5.1.3 no address') for one in recipients if _FORBIDDEN.search(one)}
        asked = [one for one in recipients if one not in answers]
        if _FORBIDDEN.search(sender):
            return dict.fromkeys(recipients, Answer(553, '5.1.7 no sender address'))
        international = not all(one.isascii() for one in (sender, *asked))
        if international and not smtp.has_extn('smtputf8'):
            return dict.fromkeys(recipients, Answer(553, '5.6.7 the server takes ASCII addresses only'))
        smtp.command_encoding = 'utf-8' if international else 'ascii'
        options = self._options(smtp, content, international)
        said = Answer.of(*smtp.docmd('MAIL', f'FROM:<{sender}>{options}'))
        if said.code != 250:
            smtp.rset()
            return answers | dict.fromkeys(asked, said)
        for one in asked:
            answers[one] = Answer.of(*smtp.docmd('RCPT', f'TO:<{one}>'))
        accepted = [one for one in asked if answers[one].code in (250, 251)]
        if accepted:
            try:
                said = Answer.of(*smtp.data(content))
            except smtplib.SMTPDataError as error:
                said = Answer.of(error.smtp_code, error.smtp_error)
            answers |= dict.fromkeys(accepted, said)
        if not accepted or said.code != 250:
            smtp.rset()
        return answers

    def _options(self, smtp: smtplib.SMTP, content: bytes, international: bool) -> str:
        options = []
        if smtp.has_extn('size'):
            options.append(f'SIZE={len(content)}')
        if smtp.has_extn('8bitmime') and not content.isascii():
            options.append('BODY=8BITMIME')
        if international:
            options.append('SMTPUTF8')
        if smtp.has_extn('dsn') and self.idempotency_key:
            options.append(f'ENVID={self.idempotency_key}')
        return ''.join(f' {option}' for option in options)

    def _reusable(self) -> smtplib.SMTP | None:
        """:return: the connection that is there, if the server still keeps it."""
        limit = self.setting['mails_per_connection']
        if self._smtp is None:
            return None
        if limit is not None and self._sent >= limit:
            self._close()
            return None
        try:
            if self._smtp.rset()[0] == 250:
                return self._smtp
        except (OSError, smtplib.SMTPException):
            pass  # it was closed while it was idle
        self._drop()
        return None

    def _connect(self) -> smtplib.SMTP:
        """:raises DestinationDown: the server cannot be had."""
        setting, now_s = self.setting, time.monotonic()
        if now_s < self._down_until_s:
            raise DestinationDown(self._down)
        self._sent = 0
        try:
            self._smtp = self._greet()
        except (OSError, smtplib.SMTPException, ValueError) as error:
            self._drop()
            self._down = f'{setting["host"]}:{self._port}: {error or type(error).__name__}'
            self._down_until_s = time.monotonic() + DOWN_S
            raise DestinationDown(self._down) from error
        return self._smtp

    def _greet(self) -> smtplib.SMTP:
        setting = self.setting
        is_implicit = setting['tls'] == 'implicit'
        make = partial(smtplib.SMTP_SSL, context=self._tls) if is_implicit else smtplib.SMTP
        hostname = setting['hostname'] or socket.gethostname()
        self._smtp = smtp = make(local_hostname=hostname, timeout=setting['connect_timeout'])
        # `starttls` and `SMTP_SSL` check the certificate against this name.
        smtp._host = setting['host']  # type: ignore[attr-defined]
        code, text = smtp.connect(setting['host'], self._port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, text)
        smtp.ehlo_or_helo_if_needed()
        if setting['tls'] == 'starttls':
            smtp.starttls(context=self._tls)
            smtp.ehlo()
        if setting['user']:
            smtp.login(setting['user'], self._password)
        assert smtp.sock is not None
        smtp.sock.settimeout(setting['timeout'])
        return smtp

    def _close(self) -> None:
        """Say good-bye."""
        if self._smtp is not None:
            try:
                self._smtp.quit()
            except (OSError, smtplib.SMTPException):
                pass
            self._drop()

    def _drop(self) -> None:
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            smtp.close()


def _told(answers: Mapping[str, str]) -> str:
    told = [f'{one}: {answer}' for one, answer in answers.items()][:TOLD]
    return '; '.join(told) + (f'; and {len(answers) - TOLD} more' if len(answers) > TOLD else '')
