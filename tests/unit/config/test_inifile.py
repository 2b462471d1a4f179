from __future__ import annotations

import os
from pathlib import Path

import pytest

from switchboard.config.inifile import (
    MAX_FILE_BYTES,
    MAX_PROBLEMS,
    Problems,
    Section,
    parse_ini,
    read_config_file,
)
from switchboard.errors import ConfigError, ConfigErrors
from switchboard.suggestions import did_you_mean


def read(text: str | bytes) -> tuple[dict[str, Section], list[str]]:
    problems = Problems()
    content = text.encode() if isinstance(text, str) else text
    sections = parse_ini(content, 'f.cfg', problems)
    return {section.name: section for section in sections}, [str(error) for error in problems.errors]


def values(text: str) -> dict[str, str]:
    sections, errors = read('[s]\n' + text)
    assert errors == []
    return {key: option.value for key, option in sections['s'].options.items()}


def test_keys_are_found_in_their_sections_with_their_lines() -> None:
    sections, errors = read('\n[one]\na = 1\n\n[two.x]\nb=  two words \n')
    assert errors == []
    assert list(sections) == ['one', 'two.x']
    assert (sections['two.x'].line, sections['two.x'].options['b'].line) == (5, 6)
    assert sections['two.x'].options['b'].value == 'two words'


def test_an_indented_line_goes_on_with_the_value_and_knows_its_own_line() -> None:
    sections, _ = read('[s]\nk =\n    one\n\n    two\nl = 3\n')
    assert sections['s'].options['k'].lines == [(3, 'one'), (5, 'two')]
    assert sections['s'].options['l'].value == '3'


def test_keys_may_be_indented_as_long_as_they_are_indented_alike() -> None:
    assert values('  a = 1\n  b = 2\n    more\n') == {'a': '1', 'b': '2\nmore'}


def test_comments_are_whole_lines_or_follow_a_blank_and_a_semicolon() -> None:
    text = '; c\n# c\na = 1 ; c\nb = x;y\nc = x ;y\n  ; c\n  # c\n  z\n;c\nd = # no comment\n'
    assert values(text) == {'a': '1', 'b': 'x;y', 'c': 'x ;y\nz', 'd': '# no comment'}


def test_a_semicolon_can_be_meant_as_one() -> None:
    assert values('a = sh -c "one \\; two"\n') == {'a': 'sh -c "one ; two"'}


def test_a_section_line_may_have_a_comment() -> None:
    sections, errors = read('[s] ; what it is\na = 1\n')
    assert errors == []
    assert list(sections) == ['s']


def test_a_hash_with_an_arrow_is_a_binding_and_other_hashes_are_comments() -> None:
    text = 'b =\n    #   -> all\n    #.x -> some\n    # old.* -> gone\n    # see below\n    #\n    a -> c\n# x -> no\n'
    assert values(text) == {'b': '#   -> all\n#.x -> some\na -> c'}


def test_values_are_not_interpolated() -> None:
    assert values('a = 100% %(b)s ${c} $HOME ~\n') == {'a': '100% %(b)s ${c} $HOME ~'}


def test_windows_lines_and_a_byte_order_mark_are_read() -> None:
    sections, errors = read(b'\xef\xbb\xbf[s]\r\na = 1\r\n  2\r\n')
    assert errors == []
    assert sections['s'].options['a'].value == '1\n2'


@pytest.mark.parametrize(
    ('text', 'error'),
    [
        ('a = 1\n', 'f.cfg:1 a: stands before the first section'),
        ('[s]\njunk\n', "f.cfg:2 [s]: 'junk' is neither a section nor a key; write `key = value`"),
        ('[s]\n= 1\n', "f.cfg:2 [s]: '= 1' is neither a section nor a key; write `key = value`"),
        ('[s\n', "f.cfg:1: '[s' is no section; write [name]"),
        ('[]\n', "f.cfg:1: '[]' is no section; write [name]"),
        ('[s]\na = 1\na = 2\n', 'f.cfg:3 [s] a: was set before, in line 2'),
        ('[s]\n[t]\n[s]\n', 'f.cfg:3 [s]: was opened before, in line 1; put both into one'),
        (b'[s]\na = \xff\n', 'f.cfg:2 [s]: is not UTF-8 text'),
        (b'[s]\na = \0\n', 'f.cfg:2 [s]: holds a NUL character'),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str | bytes, error: str) -> None:
    assert read(text)[1] == [error]


def test_one_mistake_does_not_hide_the_next_nor_make_up_others() -> None:
    sections, errors = read('[s\na = 1\na = 2\n[t]\nb = 1\n[t]\nb = 2\n  more\nc\n  d\n')
    assert [error.split(':')[1].split()[0] for error in errors] == ['1', '3', '6', '9']
    assert {name: list(section.options) for name, section in sections.items()} == {'t': ['b']}
    assert sections['t'].options['b'].value == '1'


def test_a_file_of_mistakes_does_not_fill_the_memory_with_them() -> None:
    _, errors = read('junk\n' * 10_000)
    assert len(errors) == MAX_PROBLEMS


def test_errors_are_raised_in_the_order_of_the_lines() -> None:
    problems = Problems()
    problems.raise_errors()
    for line in (3, 1, 2):
        problems.error(ConfigError('x', file='f', line=line))
    with pytest.raises(ConfigErrors) as caught:
        problems.raise_errors()
    assert [error.line for error in caught.value.errors] == [1, 2, 3]
    assert str(caught.value) == 'f:1: x\nf:2: x\nf:3: x'


def test_a_file_that_is_not_there_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='cannot be read: No such file'):
        read_config_file(tmp_path / 'none.cfg')


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'fifo')
    for path in (tmp_path / 'fifo', tmp_path):
        with pytest.raises(ConfigError, match='is not a regular file'):
            read_config_file(path)


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'big.cfg'
    path.touch()
    os.truncate(path, MAX_FILE_BYTES + 1)
    with pytest.raises(ConfigError, match='is larger than 16 MiB'):
        read_config_file(path)


def test_a_word_is_proposed_only_if_it_looks_alike() -> None:
    assert did_you_mean('durabilty', ['durability', 'spool']) == '; did you mean durability?'
    assert did_you_mean('colour', ['durability', 'spool']) == ''
