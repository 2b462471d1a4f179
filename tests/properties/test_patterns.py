"""No pattern of the package costs more than its input is long, whoever wrote the input.

Every pattern is found in the source, with the methods that it is used by; each of its loops is then given a long run of what it
repeats, with an end that does not match.  Inputs that are four times as long may take nine times as long; what goes over them
twice for each character takes sixteen times (tests/properties/growth.py).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from re import _constants as constants
from re import _parser as parser
from typing import Any

import pytest

from switchboard.operating.selection import Pattern
from tests.properties.growth import is_linear

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / 'switchboard').rglob('*.py'), *(ROOT / 'runners').rglob('*.py')])
FUNCTIONS = ('compile', 'search', 'match', 'fullmatch', 'sub', 'subn', 'split', 'finditer', 'findall')
# What stands in each file that calls one of them.
MENTIONED = re.compile(rf'\bre\s*\.\s*(?:{"|".join(FUNCTIONS)})\b')

SHORT = 2_000


def _constants_of(tree: ast.Module) -> dict[str, Any]:
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _is_re(call: ast.AST) -> bool:
    return (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == 're'
        and call.func.attr in FUNCTIONS
    )


def _text(node: ast.expr, names: dict[str, Any]) -> str | bytes | None:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        value = names.get(node.id) if isinstance(node, ast.Name) else None
    return value if isinstance(value, str | bytes) else None


def _flags(call: ast.Call) -> int:
    found = 0
    for node in (*call.args[1:], *(word.value for word in call.keywords)):
        for each in ast.walk(node):
            if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == 're':
                found |= int(getattr(re, each.attr))
    return found


def _methods(nodes: list[ast.AST], call: ast.Call) -> set[str]:
    """:return: the methods that a compiled pattern is used by, in a module of these nodes."""
    assert isinstance(call.func, ast.Attribute)
    if call.func.attr != 'compile':
        return {call.func.attr}
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.value is call:
            return {node.attr}
    names = {
        target.id
        for node in nodes
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is call
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    used = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names
    }
    return used or {'search'}  # handed on to others


def patterns() -> Iterator[tuple[str, str | bytes, int, str]]:
    for path in SOURCES:
        source = path.read_text()
        if not MENTIONED.search(source):
            continue  # each process that tests side by side looks through all of them
        tree = ast.parse(source)
        names = _constants_of(tree)
        nodes = list(ast.walk(tree))
        for node in nodes:
            if not _is_re(node):
                continue
            assert isinstance(node, ast.Call)
            place = f'{path.relative_to(ROOT)}:{node.lineno}'
            text = _text(node.args[0], names)
            if text is None:
                text = _dynamic(node)
            for method in sorted(_methods(nodes, node)):
                yield place, text, _flags(node), method


def _dynamic(call: ast.Call) -> str:
    """A pattern that is put together of parts is tried with the parts that stand in the source."""
    return ''.join(
        each.value
        for each in ast.walk(call.args[0])
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    )


FOUND = [each for each in patterns() if each[3] in FUNCTIONS]


def _sample(node: Any) -> str:
    """:return: about the shortest text that matches a parsed pattern, as far as that can be told simply."""
    text = ''
    for op, value in node:
        if op is constants.LITERAL:
            text += chr(value)
        elif op is constants.NOT_LITERAL:
            text += 'x' if value != ord('x') else 'y'
        elif op is constants.IN:
            text += _member(value)
        elif op is constants.ANY:
            text += 'x'
        elif op is constants.BRANCH:
            text += _sample(value[1][0])
        elif op is constants.SUBPATTERN:
            text += _sample(value[3])
        elif op in (constants.MAX_REPEAT, constants.MIN_REPEAT, constants.POSSESSIVE_REPEAT):
            text += _sample(value[2]) * value[0]
    return text


def _member(items: list[Any]) -> str:
    if items and items[0][0] is constants.NEGATE:
        return next(char for char in 'x0 :,;\x01' if not re.match(_class_text(items[1:]), char))
    for op, value in items:
        if op is constants.LITERAL:
            return chr(value)
        if op is constants.RANGE:
            return chr(value[0])
        if op is constants.CATEGORY:
            return {
                constants.CATEGORY_SPACE: ' ',
                constants.CATEGORY_DIGIT: '0',
                constants.CATEGORY_WORD: 'a',
                constants.CATEGORY_NOT_SPACE: 'a',
                constants.CATEGORY_NOT_DIGIT: 'a',
                constants.CATEGORY_NOT_WORD: '-',
            }[value]
    raise AssertionError(items)


_CATEGORIES = {
    constants.CATEGORY_SPACE: r'\s',
    constants.CATEGORY_DIGIT: r'\d',
    constants.CATEGORY_WORD: r'\w',
    constants.CATEGORY_NOT_SPACE: r'\S',
    constants.CATEGORY_NOT_DIGIT: r'\D',
    constants.CATEGORY_NOT_WORD: r'\W',
}


def _class_text(items: list[Any]) -> str:
    parts = []
    for op, value in items:
        if op is constants.CATEGORY:
            parts.append(_CATEGORIES[value])
        elif op is constants.RANGE:
            parts.append(f'{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}')
        else:
            parts.append(re.escape(chr(value)))
    return f'[{"".join(parts)}]'


def _pumps(node: Any, before: str = '') -> Iterator[tuple[str, str]]:
    """:return: for each loop, what leads to it, and what it repeats."""
    for op, value in node:
        if op in (constants.MAX_REPEAT, constants.MIN_REPEAT, constants.POSSESSIVE_REPEAT):
            if value[1] > 100:
                yield before, _sample(value[2]) or 'x'
            yield from _pumps(value[2], before)
        elif op is constants.BRANCH:
            for branch in value[1]:
                yield from _pumps(branch, before)
        elif op is constants.SUBPATTERN:
            yield from _pumps(value[3], before)
        before += _sample([(op, value)])


def hostile(pattern: str | bytes, flags: int, length: int) -> Iterator[str]:
    parsed = parser.parse(
        pattern if isinstance(pattern, str) else pattern.decode('latin-1'), flags & ~re.ASCII
    )
    pumps = [*_pumps(parsed), ('', _sample(parsed) or 'x')]
    units = {unit for _, unit in pumps} | {
        ' ',
        'a',
        '0',
        '\r',
        '\n',
        '"',
        '#',
        '\\',
        'a ',
        ' a',
        '""',
        '\r ',
        'a:',
    }
    for before, unit in pumps:
        yield before + unit * (length // len(unit)) + '\x00'
    for before in {before for before, _ in pumps}:
        for unit in sorted(units):
            yield before + unit * (length // len(unit)) + '\x00'


def _run(compiled: re.Pattern[Any], method: str, text: Any) -> None:
    if method in ('sub', 'subn'):
        compiled.sub(text[:0], text)
    elif method == 'finditer':
        for _each in compiled.finditer(text):
            pass
    else:
        getattr(compiled, method)(text)


@pytest.mark.parametrize(
    ('place', 'pattern', 'flags', 'method'), FOUND, ids=[f'{place}-{method}' for place, _, _, method in FOUND]
)
def test_no_pattern_is_worse_than_linear(place: str, pattern: str | bytes, flags: int, method: str) -> None:
    check(place, pattern, flags, method)


def check(place: str, pattern: str | bytes, flags: int, method: str, length: int = SHORT) -> None:
    """:raises AssertionError: the pattern takes more for four times a length than four times as long, for some input."""
    compiled = re.compile(pattern, flags)
    texts_of = (hostile(pattern, flags, length), hostile(pattern, flags, 4 * length))
    for short, long in zip(*texts_of, strict=True):
        texts: tuple[Any, Any] = (short, long)
        if isinstance(pattern, bytes):
            texts = short.encode('latin-1', 'replace'), long.encode('latin-1', 'replace')
        runs = [partial(_run, compiled, method, text) for text in texts]
        assert is_linear(*runs), (place, short[:40])


def test_all_patterns_are_found() -> None:
    places = {place.partition(':')[0] for place, *_ in FOUND}
    assert {'switchboard/message/mail.py', 'switchboard/config/inifile.py', 'runners/smtp.py'} <= places
    assert len(FOUND) > 30


@pytest.mark.parametrize('bad', [r'#\S*\s*->', r'\s+$'])
def test_one_that_is_worse_would_be_noticed(bad: str) -> None:
    with pytest.raises(AssertionError):
        check('here', bad, 0, 'search', SHORT // 2)


def test_a_pattern_with_stars_is_looked_for_in_linear_time() -> None:
    runs = (partial(Pattern(('', 'a' * many + 'b', '')).matches, 'a' * 16 * many) for many in (500, 2_000))
    assert is_linear(*runs)
