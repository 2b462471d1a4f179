"""The keys of a section that a runner's own class declares."""

from __future__ import annotations

from typing import Any

import pytest

from switchboard.config.units import duration_s
from switchboard.errors import ConfigError
from switchboard.options import RunnerOptions
from switchboard.runner.settings import Setting, read_secret, read_settings

DECLARED = {
    'timeout': Setting(duration_s, default=30.0),
    'command': Setting(required=True),
    'tries': Setting(int, default=3, old_name='attempts'),
}


def read(**settings: str) -> dict[str, Any]:
    options = RunnerOptions(name='pipe', class_path='x:Pipe', settings=settings)
    return read_settings(DECLARED, options, 'Pipe')


def test_declared_keys_are_read_and_the_others_have_their_defaults() -> None:
    assert read(command='cat', timeout='2m') == {'command': 'cat', 'timeout': 120.0, 'tries': 3}


def test_a_key_that_is_missing_is_named_with_its_section() -> None:
    with pytest.raises(ConfigError, match='Pipe needs this key') as caught:
        read(timeout='1s')
    assert (caught.value.section, caught.value.key) == ('runner.pipe', 'command')


def test_a_key_that_nobody_declared_is_an_error_with_a_guess() -> None:
    with pytest.raises(ConfigError, match='did you mean timeout') as caught:
        read(command='cat', timeuot='1s')
    assert caught.value.key == 'timeuot'
    with pytest.raises(ConfigError, match=r'no such key$'):
        read(command='cat', zzzzzz='1')


def test_an_old_name_is_read_as_the_new_one_and_both_together_are_an_error() -> None:
    assert read(command='cat', attempts='5')['tries'] == 5
    with pytest.raises(ConfigError, match="old name of 'tries'") as caught:
        read(command='cat', attempts='5', tries='6')
    assert caught.value.key == 'attempts'


@pytest.mark.parametrize(('key', 'value'), [('tries', 'many'), ('attempts', 'many'), ('timeout', 'soon')])
def test_a_value_that_cannot_be_read_is_named_with_its_key(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=value) as caught:
        read(command='cat', **{key: value})
    assert (caught.value.section, caught.value.key) == ('runner.pipe', key)


class TestSecrets:
    def test_the_first_line_is_it(self, tmp_path) -> None:
        (tmp_path / 'password').write_bytes('paßwörd \r\nnot this\n'.encode())
        assert read_secret(str(tmp_path / 'password'), 'runner.x') == 'paßwörd '

    @pytest.mark.parametrize('content', [None, b'\xff\n'])
    def test_one_that_cannot_be_read_is_a_mistake_of_the_section(
        self, tmp_path, content: bytes | None
    ) -> None:
        if content is not None:
            (tmp_path / 'password').write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            read_secret(str(tmp_path / 'password'), 'runner.x')
        assert (caught.value.section, caught.value.key) == ('runner.x', 'password_file')

    def test_one_that_is_not_named_is_too(self) -> None:
        with pytest.raises(ConfigError, match='give it'):
            read_secret(None, 'runner.x')
