"""Whatever a file holds: the reading ends, and what it complains of is a `ConfigError`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from switchboard.config.config import Config
from switchboard.config.exchangefile import read_exchanges
from switchboard.config.inifile import Problems
from switchboard.config.keys import MASTER_KEYS, QUEUE_KEYS, RUNNER_KEYS, SWITCHBOARD_KEYS
from switchboard.config.queue_sections import QueueRules
from switchboard.config.units import duration_s, retry_policy, size_bytes
from switchboard.errors import ConfigErrors
from switchboard.options import QueueOptions
from tests.helpers.configurations import load

WORDS = r"""
    [ ] = ; # -> , : . * ? all: any: exchange: none yes 5m 10M 1s..2h x2 jitter 10% a b.c "q" ' %(a)s ${b} \; \ é 𝄞
    [switchboard] [master] [runner.a] [runner.b] [queue.a] [queue.*] [queue.a*] [exchange.x] [exchange.y] [queue.bad]
    type=topic type=headers type=fanout type=direct alternate=exchange:y alternate=a bindings= class=m:C queue=a spool=s
    dead_letter=a dead_letter=exchange:x accept=pickle scale_runner=a
    """.split()
BLANKS = ['\n', '\n', '\n', '\n    ', ' ', ' = ', '\t', '\x0b', '\x85', '\r\n', '\0']
KEYS = [*SWITCHBOARD_KEYS, *MASTER_KEYS, *RUNNER_KEYS, *QUEUE_KEYS]
PIECES = st.one_of(st.sampled_from(WORDS), st.sampled_from(BLANKS), st.sampled_from(KEYS))
TEXTS = st.lists(PIECES, max_size=40).map(''.join)
CONTENTS = st.one_of(TEXTS.map(str.encode), st.binary(max_size=200))


@given(CONTENTS, CONTENTS)
@example(b'[switchboard]\nspool=s', b'[exchange.x]\ntype=topic\nalternate=exchange:x')
def test_any_two_files_are_a_configuration_or_a_list_of_mistakes(
    switchboard_cfg: bytes, exchange_cfg: bytes
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / 'switchboard.cfg'
        path.write_bytes(switchboard_cfg)
        (path.parent / 'exchange.cfg').write_bytes(exchange_cfg)
        try:
            config = Config.load(path)
        except ConfigErrors as caught:
            mistakes = caught.errors
        else:
            mistakes = ()
            assert config.queue_names()[-1] == 'bad'
            assert not config.changes(config)
            config.graph().to_dot()
    assert all(mistake.file and mistake.reason for mistake in mistakes)


@given(st.text(), st.text(max_size=30))
def test_any_text_is_an_exchange_file_or_a_list_of_mistakes(text: str, pattern: str) -> None:
    for content in (text, f'[exchange.x]\ntype=topic\nbindings =\n {pattern} -> q\n'):
        problems = Problems()
        table = read_exchanges(content.encode('utf-8', 'surrogatepass'), 'f', problems)
        assert not (problems.errors and table.exchanges)


@given(st.text(st.sampled_from('0123456789.smhdwxKMGTiB% jitter'), max_size=20))
def test_any_value_is_read_or_refused_with_a_reason(text: str) -> None:
    for read in (duration_s, size_bytes, retry_policy):
        try:
            read(text)
        except ValueError as error:
            reason = str(error)
        else:
            reason = 'none'
        assert reason


@given(st.integers(0, 9), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_a_duration_is_the_sum_of_its_parts(
    hours: int, minutes: int, seconds: int, milliseconds: int
) -> None:
    expected = hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    assert abs(duration_s(f'{hours}h{minutes}m{seconds}s{milliseconds}ms') - expected) < 1e-9


GLOBS = st.text(st.sampled_from('ab*?'), min_size=1, max_size=4)


@given(
    st.dictionaries(GLOBS, st.integers(0, 9), max_size=6),
    st.text(st.sampled_from('ab'), min_size=1, max_size=4),
)
def test_the_most_specific_section_decides(sections: dict[str, int], name: str) -> None:
    def matches(glob: str, text: str) -> bool:
        if not glob or not text:
            return not glob.strip('*') and not text
        if glob[0] == '*':
            return matches(glob[1:], text) or matches(glob, text[1:])
        return glob[0] in ('?', text[0]) and matches(glob[1:], text[1:])

    def weight(item: tuple[int, str]) -> tuple[bool, int, int]:
        number, glob = item
        return glob == name, sum(char in 'ab' for char in glob), number

    fitting = [item for item in enumerate(sections) if matches(item[1], name)]
    expected = sections[max(fitting, key=weight)[1]] if fitting else QueueOptions().priority
    with tempfile.TemporaryDirectory() as directory:
        config = load(
            Path(directory), ''.join(f'[queue.{glob}]\npriority = {n}\n' for glob, n in sections.items())
        )
    assert isinstance(config.queues, QueueRules)
    assert config.queue_options(name).priority == expected
