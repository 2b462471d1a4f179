"""The SMTP runner with TLS and a password: what is used, and what stops it."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from switchboard.errors import ConfigError
from tests.acceptance.mail.outlet import BOB, Outlet
from tests.acceptance.mail.smtp_server import Server, serving
from tests.helpers.waiting import PATIENCE_S


@pytest.fixture(scope='module')
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('tls') / 'both.pem'
    subprocess.run(
        [
            'openssl',
            'req',
            '-x509',
            '-newkey',
            'rsa:2048',
            '-nodes',
            '-days',
            '2',
            '-subj',
            '/CN=localhost',
            '-addext',
            'subjectAltName=DNS:localhost',
            '-keyout',
            str(path),
            '-out',
            f'{path}.crt',
        ],
        check=True,
        capture_output=True,
        timeout=PATIENCE_S,
    )
    path.write_bytes(path.read_bytes() + Path(f'{path}.crt').read_bytes())
    return path


def test_tls_and_a_password_are_used(tmp_path: Path, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    (tmp_path / 'password').write_text('secret\n')
    server = Server(extensions=('STARTTLS', 'AUTH PLAIN'), answers={'AUTH': '235 welcome'}, tls=context)
    keys = {'host': 'localhost', 'tls': 'starttls', 'user': 'me', 'password_file': str(tmp_path / 'password')}
    with serving(server):
        outlet = Outlet(tmp_path, server, **keys, tls_ca=str(certificate))
        outlet.put(BOB)
        outlet.work()
        assert len(server.mails) == 1
        assert 'AUTH PLAIN AG1lAHNlY3JldA==' in server.commands
        distrustful = Outlet(tmp_path, server, **keys)  # whose authorities do not know the certificate
        distrustful.put(BOB)
        distrustful.work()
        server.answers = {'AUTH': '535 5.7.8 wrong password'}
        unwelcome = Outlet(tmp_path, server, **keys, tls_ca=str(certificate))
        unwelcome.work()
    assert len(server.mails) == 1
    assert len(unwelcome.queue.get_files()) == 1
    assert unwelcome.bad() == []


def test_a_password_that_cannot_be_read_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    outlet = Outlet(tmp_path, Server(port=9), user='me', tls='no', password_file=str(tmp_path / 'none'))
    with pytest.raises(ConfigError, match='password_file: cannot be read'):
        outlet.work()
