"""An authority, and what it signs, made anew by openssl for each run."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.servers.place import missing

EXTENSIONS = """
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
[server]
basicConstraints = CA:FALSE
subjectAltName = DNS:localhost
extendedKeyUsage = serverAuth
[client]
basicConstraints = CA:FALSE
extendedKeyUsage = clientAuth
"""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates.

    :param directory: where they are kept.
    """

    def __init__(self, directory: Path, name: str) -> None:
        if shutil.which('openssl') is None:
            missing('openssl')
        self._directory = directory
        directory.mkdir(exist_ok=True)
        self._extensions = directory / 'extensions.cnf'
        self._extensions.write_text(EXTENSIONS)
        self.own = Pair(directory / 'authority.pem', directory / 'authority.key')
        self._make(self.own, f'/CN={name}', 'authority', '-signkey', str(self.own.key))

    def sign(self, what: str) -> Pair:
        """Sign a certificate.

        :param what: ``server``, which is good for localhost and not for 127.0.0.1, or ``client``.
        """
        pair = Pair(self._directory / f'{what}.pem', self._directory / f'{what}.key')
        authority = ('-CA', str(self.own.certificate), '-CAkey', str(self.own.key), '-CAcreateserial')
        self._make(pair, f'/CN={what}', what, *authority)
        return pair

    def _make(self, pair: Pair, subject: str, section: str, *signer: str) -> None:
        request = pair.key.with_suffix('.csr')
        _openssl(
            'req',
            '-new',
            '-newkey',
            'ec',
            '-pkeyopt',
            'ec_paramgen_curve:P-256',
            '-nodes',
            '-subj',
            subject,
            '-keyout',
            pair.key,
            '-out',
            request,
        )
        _openssl(
            'x509', '-req', '-in', request, '-days', '2', '-sha256', *signer, '-out', pair.certificate,
            '-extfile', self._extensions, '-extensions', section,
        )  # fmt: skip
        pair.key.chmod(0o644)  # a server may be another user


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(['openssl', *map(str, arguments)], check=True, capture_output=True)
