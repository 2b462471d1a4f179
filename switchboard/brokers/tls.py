"""The TLS options of a broker's URL: which certificates to believe, and which one to show.

They have kombu's names for Redis, and mean the same for RabbitMQ, where kombu itself hands them on under names that py-amqp does not know.
Without an option, the broker's certificate must be signed by an authority that this machine trusts, and name the host of the URL.  That is
stricter than the libraries are by default: kombu takes any certificate for ``rediss://``, and py-amqp one of any host.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from switchboard.config.url_options import UrlOption, absolute_path, read_options, yes_or_no
from switchboard.errors import ConfigError
from switchboard.regular_file import open_regular

SCHEMES = ('amqps', 'rediss')
PREFIX = 'ssl'


@dataclass(frozen=True, slots=True)
class Tls:
    """The encryption of a connection.

    :ivar ca_certs: a file of certificates: of the authorities that may sign the broker's.
    :ivar certfile: our own certificate, for brokers that ask for one.
    :ivar keyfile: its key, if that is not in the same file.
    :ivar must_verify: is a certificate that nobody known has signed refused?
    :ivar check_hostname: is one of another host refused?
    """

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    must_verify: bool = True
    check_hostname: bool = True

    def check_files(self) -> None:
        """Read the files.

        :raises ConfigError: one of them is not there, or not what it should be.  The libraries would not say which.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca_certs is not None:
            with _reading('ssl_ca_certs', self.ca_certs):
                open_regular(self.ca_certs).close()
                context.load_verify_locations(self.ca_certs)
        if self.certfile is not None:
            for option, path in (('ssl_certfile', self.certfile), ('ssl_keyfile', self.keyfile)):
                if path is not None:
                    with _reading(option, path):
                        open_regular(path).close()
            with _reading('ssl_certfile', self.certfile):
                # A key that is encrypted is an error: nobody is there to be asked for the password.
                context.load_cert_chain(self.certfile, self.keyfile, password='')

    def explain(self, reason: str) -> str:
        """:return: why there is no connection, for people.  A broker that misses a certificate may hang up without a word."""
        is_hung_up = any(word in reason for word in ('EOF', 'reset', 'closed'))
        return (
            f'{reason}; it may want a certificate: ssl_certfile'
            if is_hung_up and not self.certfile
            else reason
        )

    def for_redis(self) -> dict[str, Any]:
        """:return: the arguments that kombu hands on to redis-py."""
        return {
            'ssl_ca_certs': self.ca_certs,
            'ssl_certfile': self.certfile,
            'ssl_keyfile': self.keyfile,
            'ssl_cert_reqs': self._verify_mode,
            'ssl_check_hostname': self._checks_hostname,
        }

    def for_rabbitmq(self, host: str) -> dict[str, Any]:
        """:return: the arguments that kombu hands on to py-amqp, which checks the name that it is given."""
        return {
            'ca_certs': self.ca_certs,
            'certfile': self.certfile,
            'keyfile': self.keyfile,
            'cert_reqs': self._verify_mode,
            **({'server_hostname': host} if self._checks_hostname else {}),
        }

    @property
    def _verify_mode(self) -> ssl.VerifyMode:
        return ssl.CERT_REQUIRED if self.must_verify else ssl.CERT_NONE

    @property
    def _checks_hostname(self) -> bool:
        return self.must_verify and self.check_hostname


def _verify(text: str) -> bool:
    # A client that says "optional" is shown a certificate all the same, and then it counts.
    word = text.lower().removeprefix('cert_')
    if word not in ('required', 'optional', 'none'):
        raise ValueError('must be required or none')
    return word != 'none'


OPTIONS: dict[str, UrlOption] = {
    'ssl_ca_certs': UrlOption('ca_certs', absolute_path),
    'ssl_certfile': UrlOption('certfile', absolute_path),
    'ssl_keyfile': UrlOption('keyfile', absolute_path),
    'ssl_cert_reqs': UrlOption('must_verify', _verify),
    'ssl_check_hostname': UrlOption('check_hostname', yes_or_no),
}


def read_tls(scheme: str, options: Mapping[str, str]) -> Tls | None:
    """Read a URL's options of TLS.

    :return: None for a connection that is not encrypted.
    :raises ConfigError: one is not known, or cannot be read, or the connection is not encrypted.
    """
    found = read_options(options.items(), OPTIONS)
    if options and scheme not in SCHEMES:
        raise ConfigError(f'{next(iter(options))!r} is for TLS: write amqps:// or rediss://', key='url')
    if 'keyfile' in found and 'certfile' not in found:
        raise ConfigError("'ssl_keyfile' is the key of an 'ssl_certfile', and there is none", key='url')
    return Tls(**found) if scheme in SCHEMES else None


@contextmanager
def _reading(option: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # of which ssl.SSLError is one
        raise ConfigError(f'{option} = {path}: {error.strerror or error}', key='url') from error
