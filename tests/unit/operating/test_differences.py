"""The lines of an edit's difference: all that changed, each line of the text one line."""

from __future__ import annotations

import pytest

from switchboard.operating.editing import Content, difference


def changed(before: bytes, after: bytes) -> list[str]:
    return [line for line in difference(Content({}, before), Content({}, after)) if line[0] != ' ']


@pytest.mark.parametrize('line', [b'-- ', b'++ x', b'@@ x', b'- -', b'-'])
def test_a_line_that_looks_like_one_of_the_head_is_shown(line: bytes) -> None:
    text = line.decode()
    assert changed(b'a\n' + line + b'\nb\n', b'a\nb\n') == [f'-{text}']
    assert changed(b'a\nb\n', b'a\n' + line + b'\nb\n') == [f'+{text}']


@pytest.mark.parametrize('strange', ['\x0b', '\x0c', '\x1c', '\x85', '\u2028', '\r'])
def test_what_ends_a_line_for_python_alone_ends_none(strange: str) -> None:
    before, after = f'Subject: hi{strange}Bcc: a\n', 'Subject: hi\n'
    assert changed(before.encode(), after.encode()) == [f'-{before[:-1]}', '+Subject: hi']


def test_an_end_of_the_text_without_a_line_end_is_said() -> None:
    assert changed(b'a', b'a\n') == ['-a\\ no end of line', '+a']
    assert changed(b'', b'a\n') == ['+a']
