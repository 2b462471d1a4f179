"""Where a broker is: the URL, our options in it, and what is shown of it."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from switchboard.brokers.producer import limits_of
from switchboard.brokers.url import Tls, is_broker_url, read_broker_url
from switchboard.errors import ConfigError
from switchboard.options import QueueOptions, shown_url
from tests.helpers.commands import switchboard
from tests.helpers.configurations import errors, load, warnings


def test_our_options_are_taken_out_and_the_others_go_to_kombu() -> None:
    url = read_broker_url(
        'amqp://me:secret@host:5673/vhost?slices=3&heartbeat=1m&login_method=EXTERNAL&queue=q'
    )
    assert (url.kind, url.slices, url.heartbeat_s, url.queue) == ('rabbitmq', 3, 60.0, 'q')
    assert url.address == 'amqp://me:secret@host:5673/vhost?login_method=EXTERNAL'
    assert url.shown == 'amqp://host:5673/vhost'


def test_several_addresses_share_the_options_of_the_first() -> None:
    url = read_broker_url('amqp://a//?slices=2;amqp://b//')
    assert (url.address, url.slices) == ('amqp://a//;amqp://b//', 2)
    assert read_broker_url('redis://a/0?lease=5s;b:6380/0?lease=6s').address == 'redis://a/0;redis://b:6380/0'


@pytest.mark.parametrize(
    ('text', 'is_warned_of'),
    [
        ('amqp://me:secret@broker.example.com//', True),
        ('redis://:secret@broker.example.com/0', True),
        ('amqp://me:secret@127.0.0.1//;amqp://me:secret@broker.example.com//', True),
        ('redis://me:secret@10.0.0.1/0', True),
        ('amqp://me:secret@broker.example.com//?clear_text=yes', False),
        ('amqp://me:secret@127.0.0.2//', False),
        ('redis://:secret@[::1]/0', False),
        ('amqp://me:secret@localhost//', False),
        ('amqp://broker.example.com//', False),
        ('amqps://me:secret@broker.example.com//', False),
        ('rediss://me:secret@broker.example.com//', False),
    ],
)
def test_a_password_that_all_of_a_network_can_read_is_warned_of(
    text: str, is_warned_of: bool, tmp_path: Path
) -> None:
    load(tmp_path, f'[queue.far]\nurl = {text}\n')
    ran = switchboard('-C', tmp_path / 'switchboard.cfg', 'check')
    assert ('[queue.far] url: the password for' in (ran.out + ran.err)) == is_warned_of
    assert 'secret' not in (ran.out + ran.err)
    assert ran.status == 0


@pytest.mark.parametrize('has_file', [True, False])
def test_a_bridge_warns_of_its_password_as_well(has_file: bool, tmp_path: Path) -> None:
    (tmp_path / 'password').write_text('secret')
    file = f'password_file = {tmp_path}/password' if has_file else ''
    bridge = f'[runner.b]\nclass = to-broker\nqueue = near\nremote_queue = q\nurl = amqp://me@broker.example.com//\n{file}\n'
    load(tmp_path, f'[queue.near]\n{bridge}')
    ran = switchboard('-C', tmp_path / 'switchboard.cfg', 'check', '--imports')
    assert ('[runner.b] url: the password for' in (ran.out + ran.err)) == has_file
    assert ran.status == 0


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('sqs://x', 'no broker that is known'),
        ('/var/spool', 'no broker that is known'),
        ('amqp://host:port/', 'not a URL'),
        ('amqp://h/;amqp://u:p@i:port/', 'not a URL'),
        ('amqp://h/;u:p@[i/?heartbeat=9', 'not a URL'),
        ('redis://h/;redis://\ud800/', 'not a URL'),
        ('amqp://h/?\udc80', 'not a URL'),
        ('amqp://h/;i/?\udc80=1', 'not a URL'),
        ('amqp://h/?slices=0', '1 to 256'),
        ('amqp://h/?slices=x', 'not a whole number'),
        ('amqp://h/?slices=257', '1 to 256'),
        ('amqp://h/?heartbeat=ten', 'heartbeat'),
        ('amqp://h/?heartbeat=10ms', 'must be 1 s at least'),
        ('amqp://h/?lease=10s', 'an option for redis'),
        ('redis://h/?type=quorum', 'an option for rabbitmq'),
        ('amqp://h/?type=stream', 'classic, quorum'),
        ('amqp://h/?declare=perhaps', 'neither yes nor no'),
        ('amqp://h/?queue=amq.gen', 'queue'),
        ('amqps://h/;amqp://i/', 'all addresses of a cluster are amqps://'),
        ('amqps://h/?ssl_ca=/x', "'ssl_ca' is not known: there are ssl_ca_certs, "),
        ('amqps://h/?ssl=true', "'ssl' is not known"),
        ('amqp://h/?ssl_ca_certs=/x', 'is for TLS: write amqps://'),
        ('redis://h/?ssl_cert_reqs=none', 'is for TLS: write amqps:// or rediss://'),
        ('rediss://h/?ssl_ca_certs=ca.pem', 'a path from the root'),
        ('rediss://h/?ssl_cert_reqs=perhaps', 'required or none'),
        ('rediss://h/?ssl_check_hostname=maybe', 'neither yes nor no'),
        ('rediss://h/?ssl_keyfile=/x', "an 'ssl_certfile', and there is none"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        read_broker_url(text)


def test_what_is_a_brokers_url() -> None:
    assert is_broker_url('rediss://x')
    assert not is_broker_url('redis')
    assert not is_broker_url('switchboard:///var/spool/x')


def test_a_password_is_not_shown() -> None:
    assert shown_url('amqp://me:secret@a/v?x=1;amqp://you@b/') == 'amqp://me:***@a/v?x=1;amqp://you@b/'
    assert shown_url('redis://:p@ss@h/0') == 'redis://:***@h/0'
    assert shown_url(None) is None


@pytest.mark.parametrize('text', ['amqp://shop:s3/cr3t@host/', 'amqp:/shop:cr3t@host', 'shop:cr3t@host'])
def test_a_password_that_spoils_the_url_is_not_shown_either(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_broker_url(text)
    assert 'cr3t' not in str(caught.value)
    assert 's3' not in str(caught.value)


def test_a_password_is_not_in_what_is_logged_of_an_address() -> None:
    assert 'secret' not in repr(read_broker_url('amqp://me:secret@a/'))


class TestTls:
    def test_without_an_option_the_broker_is_verified_and_his_name_too(self) -> None:
        for text in ('amqps://h/', 'rediss://h/0'):
            tls = read_broker_url(text).tls
            assert tls is not None
            redis, rabbit = tls.for_redis(), tls.for_rabbitmq('h')
            assert (redis['ssl_cert_reqs'], redis['ssl_check_hostname']) == (ssl.CERT_REQUIRED, True)
            assert (rabbit['cert_reqs'], rabbit['server_hostname']) == (ssl.CERT_REQUIRED, 'h')

    def test_where_there_is_none_nothing_is_verified(self) -> None:
        assert read_broker_url('amqp://h/').tls is None
        assert read_broker_url('redis://h/0').tls is None

    @pytest.mark.parametrize('word', ['none', 'CERT_NONE'])
    def test_who_verifies_nobody_does_not_look_at_the_name_either(self, word: str) -> None:
        tls = read_broker_url(f'rediss://h/0?ssl_cert_reqs={word}').tls
        assert tls is not None
        assert tls.for_redis()['ssl_check_hostname'] is False
        assert 'server_hostname' not in tls.for_rabbitmq('h')

    def test_kombu_hears_of_its_options_by_us_alone(self) -> None:
        url = read_broker_url('rediss://h/0?ssl_ca_certs=/ca&ssl_certfile=/c&ssl_keyfile=/k&lease=5s')
        assert url.address == 'rediss://h/0'
        assert url.tls == Tls('/ca', '/c', '/k')

    def test_who_hangs_up_may_want_a_certificate(self) -> None:
        assert Tls().explain('EOF occurred') == 'EOF occurred; it may want a certificate: ssl_certfile'
        assert Tls().explain('Connection refused') == 'Connection refused'
        assert Tls(certfile='/c').explain('EOF occurred') == 'EOF occurred'

    def test_a_file_that_is_no_certificate_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / 'ca.pem'
        file.write_text('no certificate')
        for option in ('ssl_ca_certs', 'ssl_certfile'):
            tls = read_broker_url(f'rediss://h/0?{option}={file}').tls
            assert tls is not None
            with pytest.raises(ConfigError, match=f'{option} = {file}'):
                tls.check_files()


def test_limits_are_those_of_each_of_the_brokers_queues() -> None:
    limits = limits_of(
        QueueOptions(max_messages=10, max_bytes=1000, overflow='drop-oldest'),
        read_broker_url('amqp://h/?slices=4'),
    )
    assert (limits.max_messages, limits.max_bytes, limits.overflow) == (2, 250, 'drop-oldest')


class TestTheConfiguration:
    def test_a_scheme_that_is_not_known_is_an_error_at_its_line(self, tmp_path: Path) -> None:
        [error] = errors(tmp_path, '[queue.a]\nexternal = yes\nurl = kafka://x\n')
        assert error.startswith('5 [queue.a] url: names no broker')

    @pytest.mark.parametrize(
        ('line', 'reason'),
        [
            ('strict_order = yes', 'strict_order: queue a: not for a queue with `url`'),
            ('min_free_space = 1G', 'min_free_space: queue a: not for a queue with `url`'),
            ('max_bytes = 1G', 'max_bytes: queue a: Redis does not count'),
            ('max_messages = 5\noverflow = drop-oldest', 'overflow: queue a: on Redis'),
        ],
    )
    def test_an_option_that_would_not_hold_is_an_error_at_its_line(
        self, tmp_path: Path, line: str, reason: str
    ) -> None:
        [error] = errors(tmp_path, f'[queue.a]\nurl = redis://h/0\n{line}\n')
        assert reason in error

    def test_the_bad_queue_stays_in_the_spool(self, tmp_path: Path) -> None:
        [error] = errors(tmp_path, '[queue.bad]\nurl = redis://h/0\n')
        assert 'operators can look into it' in error

    def test_nobody_here_need_consume_it(self, tmp_path: Path) -> None:
        assert warnings(load(tmp_path, '[queue.a]\nurl = redis://h/0\n')) == []

    def test_check_reads_the_url_and_calls_nobody(self, tmp_path: Path) -> None:
        load(tmp_path, '[queue.a]\nurl = redis://127.0.0.1:1/0?slices=x\n')
        ran = switchboard('-C', tmp_path / 'switchboard.cfg', 'check')
        assert ran.status == 78
        assert "[queue.a] url: slices = 'x'" in ran.out
