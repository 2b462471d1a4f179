"""Tables on terminals of any width, words for people, and text that cannot act on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from switchboard.cli import options, tables
from switchboard.cli.commands.config import FIRST_SPARES
from switchboard.cli.tables import Column, layout, write_table
from switchboard.operating import summary
from switchboard.operating.text import age, body_text, duration, escape_terminal, number, one_line, size
from switchboard.store.pool import KEPT_OPEN

COLUMNS = (
    Column('NAME'),
    Column('N', align_right=True, hide_rank=1),
    Column('TEXT', shrink_to=6),
    Column('X', hide_rank=2),
)


def test_with_room_for_everything_nothing_is_cut() -> None:
    assert layout(COLUMNS, (10, 3, 20, 1), 80) == {0: 10, 1: 3, 2: 20, 3: 1}


def test_the_column_that_may_shrink_gives_way_first() -> None:
    assert layout(COLUMNS, (10, 3, 20, 1), 34) == {0: 10, 1: 3, 2: 14, 3: 1}


def test_then_columns_are_left_out_the_least_important_first() -> None:
    assert layout(COLUMNS, (10, 3, 20, 1), 24) == {0: 10, 1: 3, 2: 7}
    assert layout(COLUMNS, (10, 3, 20, 1), 18) == {0: 10, 2: 6}


def test_what_was_left_out_gives_its_room_to_what_was_cut() -> None:
    columns = (Column('A'), Column('B', shrink_to=4), Column('C', hide_rank=1))
    assert layout(columns, (5, 20, 10), 20) == {0: 5, 1: 13}


def test_a_column_with_nothing_in_it_is_not_shown() -> None:
    assert layout(COLUMNS, (10, 0, 20, 0), 80) == {0: 10, 2: 20}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize('width', [24, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, 'stdout', screen)
    monkeypatch.setenv('COLUMNS', str(width))
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setenv('NO_COLOR', '1')
    long = 'a text that is longer than most terminals are wide, ' * 3
    assert write_table(COLUMNS, [['entry', '12', long, 'x'], ['entry', '3', ('short', 'red'), '']])
    lines = [tables_plain(line) for line in screen.getvalue().splitlines()]
    assert len(lines) == 3
    assert max(map(len, lines)) <= width
    assert '…' in lines[1] or width == 200


def tables_plain(line: str) -> str:
    """:return: the line without what sets it bold."""
    return line.replace('\x1b[1m', '').replace('\x1b[0m', '').rstrip('\n')


def test_in_a_pipe_nothing_is_cut_and_nothing_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    write_table(COLUMNS, [['entry', '12', 'x' * 300, ''], ['e', '3', '', 'y']])
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ['NAME', 'N', 'TEXT', 'X']
    assert first.split() == ['entry', '12', 'x' * 300, '-']
    assert second.split() == ['e', '3', '-', 'y']


def test_a_list_of_any_length_is_written_while_it_is_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, 'CHUNK_ROWS', 2)
    written_before_the_last: list[str] = []

    def rows() -> object:
        for n in range(5):
            if n == 4:
                written_before_the_last.append(capsys.readouterr().out)
            yield [str(n)]

    write_table([Column('N')], rows())
    assert written_before_the_last == ['N\n0\n1\n2\n3\n']


def test_nothing_to_write_is_told_to_the_caller(capsys: pytest.CaptureFixture[str]) -> None:
    assert not write_table(COLUMNS, [])
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('\x1b]0;title\x07', '\\x1b]0;title\\x07'),
        ('csi \x9b31m', 'csi \\x9b31m'),
        ('back\x08space', 'back\\x08space'),
        ('over\rwrite', 'over\\x0dwrite'),
        ('bidi \u202egnp.exe', 'bidi \\u202egnp.exe'),
        ('surrogate \udcff', 'surrogate \\udcff'),
        ('plain ü € 漢\ttab\nline', 'plain ü € 漢\ttab\nline'),
    ],
)
def test_what_could_act_on_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert escape_terminal(text) == shown


def test_a_cell_is_one_line() -> None:
    assert one_line('  two\nlines\t\x1b[2J ') == 'two lines \\x1b[2J'


def test_a_body_is_shown_with_its_own_lines_whatever_ends_them() -> None:
    assert body_text(b'a\r\nb\n\xff\x00') == 'a\nb\n\\xff\\x00'


def test_ages_sizes_and_counts_are_short() -> None:
    assert [duration(s) for s in (0, 0.34, 59, 60, 61, 3600, 3660, 86400, 90000)] == [
        *('0.0s', '0.3s', '59s', '1m', '1m1s', '1h', '1h1m', '1d', '1d1h')
    ]
    assert (age(5.0), age(-65)) == ('5.0s', 'in 1m5s')
    assert [size(n) for n in (0, 1023, 1024, 123456, 5 << 30)] == ['0', '1.0K', '1.0K', '121K', '5.0G']
    assert (number(1, 'entry', 'entries'), number(0, 'entry', 'entries'), number(2, 'queue')) == (
        *('1 entry', '0 entries'),
        '2 queues',
    )


def test_what_is_written_out_to_start_faster_is_what_is_meant() -> None:
    assert options.STATES == summary.STATES
    assert FIRST_SPARES == KEPT_OPEN
