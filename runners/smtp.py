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

import base64
import hmac
import io
import logging
import re
import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from email.message import Message
from functools import partial
from typing import Any, ClassVar, NamedTuple

from switchboard import Runner
from switchboard.errors import ConfigError, DestinationDown, PermanentFailure, TemporaryFailure
from switchboard.runner.api import (
    RunnerOptions,
    Setting,
    choice,
    duration_s,
    integer,
    is_loopback,
    log_event,
    mail_bytes,
    open_regular_file,
    optional,
    read_secret,
    split_from_line,
)

log = logging.getLogger('switchboard.runner')

PORTS = {'no': 25, 'starttls': 587, 'implicit': 465}
# A server that was just found to be down is not asked again for each mail of a batch.
DOWN_PAUSE_S = 0.4
# Of many recipients that were refused, so many answers stand in the reason; all are in the metadata.
MAX_LISTED = 5

# A reply is read up to here; the longest honest one is the list of a server's extensions.
MAX_REPLY_BYTES = 64 * 1024

_LINE_END = re.compile(rb'\r\n|\r|\n')
# Control characters, what ends an address, and half a character: a byte of something that is no UTF-8.  Outside of quotes a backslash stands in
# no address either: some servers leave it out, and `\\xe4@example.com`, as `drop` writes such a byte, would be somebody else's.
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>\ud800-\udfff]|^[^"]*\\')


class SmtpReply(NamedTuple):
    """A server's reply about a recipient.  The first digit decides (RFC 5321 4.2.1)."""

    code: int
    text: str

    @property
    def kind(self) -> int:
        """2: accepted, 4: not now, 5: never."""
        return self.code // 100

    @classmethod
    def parse(cls, code: int, text: bytes | str, *wanted: int) -> SmtpReply:
        """Read what ``smtplib`` gives.

        :param wanted: the classes that may be answered here, besides 4 and 5.
        :raises ConnectionLost: the server says that it closes the connection, or talks nonsense.
        """
        answer = cls(code, text if isinstance(text, str) else text.decode('utf-8', 'replace'))
        if code == 421 or answer.kind not in (4, 5, *wanted):
            raise ConnectionLost(f'the server said {answer}')
        return answer

    def __str__(self) -> str:
        return f'{self.code} {self.text}'.replace('\n', ' ')


class ConnectionLost(Exception):
    """The connection broke off, or is of no more use.

    :ivar is_sent: the whole mail was sent before, and may have been taken.
    """

    is_sent = False


def smtp_content(msg: Any) -> bytes:
    """:return: a mail as it goes over the wire, but for the dots.

    :raises PermanentFailure: it is no mail.
    """
    content = mail_bytes(msg) if isinstance(msg, Message) else msg
    if isinstance(content, str):
        content = content.encode('utf-8', 'surrogateescape')
    if not isinstance(content, bytes):
        raise PermanentFailure(f'a message of type {type(msg).__name__} is no mail')
    content = content[split_from_line(content)[1] :]
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
    """Delivers the mails of its queue to one server."""

    settings: ClassVar[Mapping[str, Setting]] = {
        'host': Setting(str, required=True),
        'port': Setting(integer(1, 65535)),
        # Without a user, `no`; with one, it must be said.
        'tls': Setting(choice(*PORTS)),
        'tls_ca': Setting(),
        'user': Setting(),
        'password_file': Setting(),
        'hostname': Setting(default=''),
        'sender': Setting(),
        'connect_timeout': Setting(duration_s, default=30.0),
        'timeout': Setting(duration_s, default=300.0),
        'idle_timeout': Setting(duration_s, default=30.0, old_name='idle'),
        'mails_per_connection': Setting(optional(integer(1)), default=100),
        'recipients_per_mail': Setting(integer(1), default=50),
    }

    @classmethod
    def check(
        cls, values: Mapping[str, Any], options: RunnerOptions, runners: Mapping[str, RunnerOptions]
    ) -> None:
        """See `Runner`."""
        user = values['user']
        if not user:
            if values['password_file']:
                raise ConfigError('is of no use without a user', key='password_file')
            return
        if not values['password_file']:
            raise ConfigError('a user needs a password_file', key='password_file')
        if values['tls'] is None and not is_loopback(values['host']):
            raise ConfigError(
                'with a user, say `starttls` or `implicit`; or `no`, if the password may go over the wire in clear text',
                key='tls',
            )

    def setup(self) -> None:
        """See `Runner`."""
        values = self.setting_values
        self._smtp: smtplib.SMTP | None = None
        self._sent = 0
        self._used_at_s = self._down_until_s = 0.0
        self._down = ''
        self._tls_kind = values['tls'] or 'no'
        self._port = values['port'] or PORTS[self._tls_kind]
        self._password = read_secret(values['password_file']) if values['user'] else ''
        if values['user'] and not self._password:
            raise ConfigError('its first line is empty', key='password_file')
        try:
            if values['tls_ca']:
                open_regular_file(values['tls_ca']).close()
            self._tls = ssl.create_default_context(cafile=values['tls_ca'])
        except OSError as error:
            raise ConfigError(f'cannot be used: {error}', key='tls_ca') from error

    def periodic(self) -> None:
        """Do not keep a server waiting that nobody has mails for."""
        if (
            self._smtp is not None
            and time.monotonic() - self._used_at_s >= self.setting_values['idle_timeout']
        ):
            self._close()

    def cleanup(self) -> None:
        """See `Runner`."""
        self._close()

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        """Deliver a mail to all who still wait for it."""
        sender, recipients = addresses(msgdata, self.setting_values['sender'])
        answers = self._deliver(Mail(sender, smtp_content(msg), bool(msgdata.get('smtputf8'))), recipients)
        later = {one: str(answer) for one, answer in answers.items() if answer.kind not in (2, 5)}
        refused = {one: str(answer) for one, answer in answers.items() if answer.kind == 5}
        for one, answer in answers.items():
            log_event(log, logging.INFO, self.filebase, 'server replied', to=one, reply=answer)
        known = msgdata.pop('refused', {})
        refused = {**(known if isinstance(known, dict) else {}), **refused}
        if later:
            msgdata['recipients'] = list(later)
            if refused:
                msgdata['refused'] = refused
            raise TemporaryFailure(_listed(later))
        if refused:
            msgdata['recipients'] = list(refused)
            raise PermanentFailure(_listed(refused))

    def _deliver(self, mail: Mail, recipients: Sequence[str]) -> dict[str, SmtpReply]:
        """:return: the answer for each recipient.

        :raises DestinationDown: the server cannot be had, and it has answered for nobody yet.
        """
        answers = {
            one: refusal for one in recipients if (refusal := _invalid_address(mail.sender, one)) is not None
        }
        sayable = [one for one in recipients if one not in answers]
        size = self.setting_values['recipients_per_mail']
        for start in range(0, len(sayable), size):
            some = sayable[start : start + size]
            reason = SmtpReply(451, '4.4.2 no answer')
            before = len(answers)
            try:
                self.send_to(mail, some, answers)
            except ConnectionLost as error:
                reason = SmtpReply(451, f'4.4.2 {error}')
            except DestinationDown as error:
                if not start and len(answers) == before:
                    raise
                reason = SmtpReply(451, f'4.4.1 {error}')
            except Exception as error:
                # A mistake of this program's: recipients who have the mail have it all the same.
                self._drop()
                log_event(log, logging.ERROR, self.filebase, 'not sent', exc_info=True)
                reason = SmtpReply(451, f'4.3.0 {type(error).__name__}: {error}')
            for one in some:
                answers.setdefault(one, reason)
        return answers

    def send_to(self, mail: Mail, recipients: Sequence[str], answers: dict[str, SmtpReply]) -> None:
        """:raises ConnectionLost: a fresh connection broke off, or one on which the mail was sent already."""
        if (smtp := self._reusable()) is not None:
            try:
                self._transact(smtp, mail, recipients, answers)
                return
            except ConnectionLost as error:
                if error.is_sent:
                    raise
                log_event(log, logging.INFO, self.filebase, 'connection lost', error=error)
        self._transact(self._connect(), mail, [one for one in recipients if one not in answers], answers)

    def _transact(
        self, smtp: smtplib.SMTP, mail: Mail, recipients: Sequence[str], answers: dict[str, SmtpReply]
    ) -> None:
        """One mail for some recipients; the replies in `answers` count when this raises."""
        self._sent += 1
        transaction = MailTransaction(smtp, mail, self.idempotency_key)
        try:
            transaction.run(recipients, answers)
        except (OSError, smtplib.SMTPException, ConnectionLost) as error:
            self._drop()
            lost = (
                error
                if isinstance(error, ConnectionLost)
                else ConnectionLost(f'the connection broke off: {error}')
            )
            lost.is_sent = transaction.is_sent
            raise lost from error
        finally:
            self._used_at_s = time.monotonic()
        if transaction.is_open:
            try:
                smtp.rset()
            except (OSError, smtplib.SMTPException):
                self._drop()  # what it has said before counts

    def _reusable(self) -> smtplib.SMTP | None:
        """:return: the connection that is there, if the server still keeps it."""
        limit = self.setting_values['mails_per_connection']
        if self._smtp is None:
            return None
        if limit is not None and self._sent >= limit:
            self._close()
            return None
        try:
            if self._smtp.rset()[0] // 100 == 2:
                return self._smtp
        except (OSError, smtplib.SMTPException):
            pass  # it was closed while it was idle
        self._drop()
        return None

    def _connect(self) -> smtplib.SMTP:
        """:raises DestinationDown: the server cannot be had."""
        values, now_s = self.setting_values, time.monotonic()
        if now_s < self._down_until_s:
            raise DestinationDown(self._down)
        self._sent = 0
        try:
            self._smtp = self._open_connection()
        except (OSError, smtplib.SMTPException, ValueError) as error:
            self._drop()
            self._down = f'{values["host"]}:{self._port}: {error or type(error).__name__}'
            self._down_until_s = time.monotonic() + DOWN_PAUSE_S
            raise DestinationDown(self._down) from error
        return self._smtp

    def _open_connection(self) -> smtplib.SMTP:
        values = self.setting_values
        is_implicit = self._tls_kind == 'implicit'
        make = partial(EncryptedClient, context=self._tls) if is_implicit else Client
        hostname = values['hostname'] or socket.gethostname()
        self._smtp = smtp = make(local_hostname=hostname, timeout=values['connect_timeout'])
        # `starttls` and `SMTP_SSL` check the certificate against this name.
        smtp._host = values['host']  # type: ignore[union-attr]  # not in the stubs
        code, text = smtp.connect(values['host'], self._port)
        if code // 100 != 2:
            raise smtplib.SMTPConnectError(code, text)
        smtp.ehlo_or_helo_if_needed()
        if self._tls_kind == 'starttls':
            smtp.starttls(context=self._tls)
            smtp.ehlo()
        if values['user']:
            log_in(smtp, values['user'], self._password)
        assert smtp.sock is not None
        smtp.sock.settimeout(values['timeout'])
        return smtp

    def _close(self) -> None:
        """Say good-bye."""
        if self._smtp is not None:
            with suppress(OSError, smtplib.SMTPException):  # it may have gone before us
                self._smtp.quit()
            self._drop()

    def _drop(self) -> None:
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            smtp.close()


class BoundedReplies:
    """Replies of a size and in a time that the server does not choose: ``smtplib`` reads a reply that goes on for as long as it does.

    The socket's time limit is that of the whole reply, and not of each of its bytes.
    """

    sock: socket.socket | None
    file: io.BufferedReader | None
    close: Callable[[], None]

    def getreply(self) -> tuple[int, bytes]:
        """See `smtplib.SMTP`.

        :raises SMTPServerDisconnected: the reply is too long, or took too long, or the connection broke off.
        """
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected('not connected')
        if self.file is None:
            self.file = self.sock.makefile('rb')
        limit_s = self.sock.gettimeout()
        ends_s = None if limit_s is None else time.monotonic() + limit_s
        try:
            return self._reply(self.sock, self.file, ends_s)
        except OSError as error:
            self.close()
            raise smtplib.SMTPServerDisconnected(f'Connection unexpectedly closed: {error}') from error
        finally:
            if self.sock is not None:
                self.sock.settimeout(limit_s)

    def _reply(self, sock: socket.socket, file: io.BufferedReader, ends_s: float | None) -> tuple[int, bytes]:
        """:raises OSError: it cannot be read to its end."""
        texts: list[bytes] = []
        size = 0
        while True:
            line = b''
            while not line.endswith(b'\n'):
                if ends_s is not None:
                    sock.settimeout(max(0.001, ends_s - time.monotonic()))
                # At most one look at the socket.
                there = file.peek(1)
                if not there:
                    raise OSError('the server has gone')
                line += file.read(there.find(b'\n') + 1 or len(there))
                if size + len(line) > MAX_REPLY_BYTES:
                    raise OSError(f'a reply of more than {MAX_REPLY_BYTES} bytes')
                if ends_s is not None and time.monotonic() >= ends_s:
                    raise TimeoutError('a reply without an end')
            size += len(line)
            texts.append(line[4:].strip(b' \t\r\n'))
            code = line[:3]
            if not (code.isdigit() and line[3:4] == b'-'):
                return int(code) if code.isdigit() else -1, b'\n'.join(texts)


class Client(BoundedReplies, smtplib.SMTP):
    """A connection in clear text, at first or for good."""


class EncryptedClient(BoundedReplies, smtplib.SMTP_SSL):
    """A connection that is encrypted from its beginning."""


class Mail(NamedTuple):
    """The mail to be sent."""

    sender: str
    content: bytes
    # The client that handed it in says that it needs SMTPUTF8 (RFC 6531).
    is_international: bool


class MailTransaction:
    """The words of one mail on a connection.

    :ivar is_sent: the whole mail was sent, whatever is answered.
    :ivar is_open: the server waits for more of this mail, or for its end.
    """

    def __init__(self, smtp: smtplib.SMTP, mail: Mail, envelope_id: str) -> None:
        self._smtp = smtp
        self._mail = mail
        self._envelope_id = envelope_id
        self.is_sent = self.is_open = False

    def run(self, recipients: Sequence[str], answers: dict[str, SmtpReply]) -> None:
        """Say it all, and note each answer as soon as it is one that counts.

        :raises ConnectionLost: no further command is possible.
        """
        smtp, mail = self._smtp, self._mail
        if not smtp.has_extn('smtputf8'):
            refusal = SmtpReply(553, '5.6.7 the server takes no international mail (SMTPUTF8)')
            needs = mail.is_international or not mail.sender.isascii()
            answers |= dict.fromkeys((one for one in recipients if needs or not one.isascii()), refusal)
            recipients = [one for one in recipients if one not in answers]
        if not recipients:
            return
        is_international = mail.is_international or not all(map(str.isascii, (mail.sender, *recipients)))
        smtp.command_encoding = 'utf-8' if is_international else 'ascii'
        self.is_open = True
        reply = self._ask('MAIL', f'FROM:<{mail.sender}>{self._options(is_international)}')
        if reply.kind != 2:
            answers |= dict.fromkeys(recipients, reply)
            return
        accepted = []
        for one in recipients:
            reply = self._ask('RCPT', f'TO:<{one}>')
            if reply.kind == 2:
                accepted.append(one)
            elif reply.code == 552:  # too many recipients, in the words of old servers: RFC 5321 4.5.3.1.10
                answers[one] = SmtpReply(452, f'4.5.3 said as 552: {reply.text}')
            else:
                answers[one] = reply
        if accepted:
            answers |= dict.fromkeys(accepted, self._send_content())

    def _ask(self, command: str, arguments: str = '', wanted: int = 2) -> SmtpReply:
        return SmtpReply.parse(*self._smtp.docmd(command, arguments), wanted)

    def _send_content(self) -> SmtpReply:
        reply = self._ask('DATA', wanted=3)
        if reply.kind != 3:
            return reply
        content = self._mail.content.replace(b'\r\n.', b'\r\n..')
        dot = b'.' if content.startswith(b'.') else b''
        end = b'.\r\n' if content.endswith(b'\r\n') or not content else b'\r\n.\r\n'
        # From here on, it may have been taken.
        self.is_sent = True
        self._smtp.send(dot + content + end)
        reply = SmtpReply.parse(*self._smtp.getreply(), 2)
        self.is_open = reply.kind != 2
        return reply

    def _options(self, is_international: bool) -> str:
        smtp, content = self._smtp, self._mail.content
        options = []
        if smtp.has_extn('size'):
            options.append(f'SIZE={len(content)}')
        if smtp.has_extn('8bitmime') and not content.isascii():
            options.append('BODY=8BITMIME')
        if is_international:
            options.append('SMTPUTF8')
        if smtp.has_extn('dsn') and self._envelope_id:
            options.append(f'ENVID={self._envelope_id}')
        return ''.join(f' {option}' for option in options)


def log_in(smtp: smtplib.SMTP, user: str, password: str) -> None:
    """Authenticate, with names and passwords in UTF-8 as RFC 4954 and 4616 have it; ``smtplib`` knows only ASCII.

    :raises SMTPException: the server has no way that is known here, or does not believe it.
    """
    ways = smtp.esmtp_features.get('auth', '').upper().split()
    if 'PLAIN' in ways:
        reply = smtp.docmd('AUTH', 'PLAIN ' + _base64(f'\0{user}\0{password}'.encode()))
    elif 'LOGIN' in ways:
        reply = smtp.docmd('AUTH', 'LOGIN ' + _base64(user.encode()))
        if reply[0] // 100 == 3:
            reply = smtp.docmd(_base64(password.encode()))
    elif 'CRAM-MD5' in ways:
        reply = smtp.docmd('AUTH', 'CRAM-MD5')
        if reply[0] // 100 == 3:
            digest = hmac.new(password.encode(), base64.b64decode(reply[1]), 'md5').hexdigest()
            reply = smtp.docmd(_base64(f'{user} {digest}'.encode()))
    else:
        raise smtplib.SMTPNotSupportedError('the server has none of AUTH PLAIN, LOGIN and CRAM-MD5')
    if reply[0] // 100 != 2:
        raise smtplib.SMTPAuthenticationError(*reply)


def _base64(text: bytes) -> str:
    return base64.b64encode(text).decode('ascii')


def _invalid_address(sender: str, recipient: str) -> SmtpReply | None:
    """:return: why an envelope cannot be said to any server; None if it can."""
    if _FORBIDDEN.search(sender):
        return SmtpReply(553, '5.1.7 no sender address')
    return SmtpReply(553, '5.1.3 no address') if _FORBIDDEN.search(recipient) else None


def _listed(answers: Mapping[str, str]) -> str:
    listed = [f'{one}: {answer}' for one, answer in answers.items()][:MAX_LISTED]
    return '; '.join(listed) + (
        f'; and {len(answers) - MAX_LISTED} more' if len(answers) > MAX_LISTED else ''
    )
