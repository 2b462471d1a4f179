"""``python -m tests.house_page`` writes what `docs/explanation/architecture.md` says of rooms, from the rooms themselves.

The storeys are those of the contract in ``setup.cfg``, a room's words are its ``__init__``, a module's are its first line, and what a
room imports is read from its imports.  All of it stands between two comments of the page; what is outside of them is written by
hand.  Sphinx with autodoc was rejected: it documents functions, and nobody finds a room by its functions.
"""

from __future__ import annotations

import ast
import configparser
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'switchboard'
RUNNERS = ROOT / 'runners'
PAGE = ROOT / 'docs' / 'explanation' / 'architecture.md'
COMMAND = 'python -m tests.house_page'

PART = re.compile(r'(<!-- written by `python -m tests\.house_page`: (\w+) -->\n).*?(<!-- end -->)', re.DOTALL)


@dataclass(frozen=True)
class Room:
    """A folder of the package, a folder in that, or a file of the ground.

    :param words: its docstring.
    :param modules: name and first line of each file, in the order in which the docstring names them.
    :param imports: the rooms and files of the ground that its files import, type-only imports included.
    :param importers: those that import it, and the shipped runners if any of them does.
    """

    name: str
    words: str
    modules: tuple[tuple[str, str], ...]
    imports: tuple[str, ...]
    importers: tuple[str, ...]

    @property
    def purpose(self) -> str:
        """The first sentence."""
        return first_sentence(self.words)


def first_sentence(docstring: str) -> str:
    """:return: the first paragraph's first sentence, on one line."""
    paragraph = ' '.join(docstring.split('\n\n')[0].split())
    return re.split(r'(?<=[.?!])\s+(?=[A-Z`*])', paragraph)[0]


@functools.cache
def storeys() -> list[list[str]]:
    """:return: the rooms of each storey, from the top of the house to the ground."""
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    lines = config['importlinter:contract:rooms']['layers'].split('\n')
    rows = [re.findall(r'\w+', line) for line in lines if line.strip() and not line.strip().startswith('#')]
    here = [[name for name in row if (PACKAGE / name).is_dir() or is_module(name)] for row in rows]
    return [row for row in here if row]


def is_module(name: str) -> bool:
    """:return: whether it is one file and no folder."""
    return (PACKAGE / f'{name}.py').is_file()


def imported_names(tree: ast.AST) -> Iterator[str]:
    """:return: the dotted names that some code imports, wherever in it and for whatever."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f'{node.module}.{alias.name}' for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def imported_by(tree: ast.AST, own: str) -> Iterator[str]:
    """:return: the rooms that some code imports, but its own."""
    for name in imported_names(tree):
        package, *rest = name.split('.')
        if package == PACKAGE.name and rest and rest[0] != own and rest[0].islower():
            yield rest[0]


@functools.cache
def importing() -> list[tuple[str, Path, set[str]]]:
    """:return: every file of the package and of the shipped runners, with its room and the dotted names that it imports."""
    paths = [(path.relative_to(PACKAGE), path) for path in PACKAGE.glob('**/*.py')]
    paths = [(place, path) for place, path in paths if place.parts[0] != RUNNERS.name]
    paths += [(path.relative_to(ROOT), path) for path in RUNNERS.glob('*.py')]
    return [
        (place.with_suffix('').parts[0], path, set(imported_names(ast.parse(path.read_text()))))
        for place, path in paths
    ]


def importers_of(name: str) -> set[str]:
    """:return: the rooms whose files import this one, which may be a room in a room."""
    own, dotted = PACKAGE / name, f'{PACKAGE.name}.{name.replace("/", ".")}.'
    return {
        room
        for room, path, names in importing()
        if not path.is_relative_to(own) and any(f'{each}.'.startswith(dotted) for each in names)
    }


@functools.cache
def room(name: str) -> Room:
    """:return: what its files say of it."""
    paths = [PACKAGE / f'{name}.py'] if is_module(name) else sorted((PACKAGE / name).glob('*.py'))
    trees = {path.stem: ast.parse(path.read_text()) for path in paths}
    words = {stem: ast.get_docstring(tree) or '' for stem, tree in trees.items()}
    sign = words.pop(name) if is_module(name) else words.pop('__init__')

    def place(stem: str) -> tuple[int, str]:
        found = re.search(rf'\b{stem}\b', sign.partition('reading order')[2])
        return (found.start() if found else len(sign), stem)

    modules = tuple((stem, first_sentence(words[stem])) for stem in sorted(words, key=place))
    found = {each for tree in trees.values() for each in imported_by(tree, name.partition('/')[0])}
    order = [each for row in storeys() for each in row]
    importers = importers_of(name)
    return Room(
        name,
        sign,
        modules,
        tuple(each for each in order if each in found),
        tuple(each for each in [*order, RUNNERS.name] if each in importers),
    )


def picture() -> str:
    """:return: the storeys, one box each, with what each room is for."""
    rows = [[room(name) for name in row] for row in storeys()]
    labels = max(len(each.name) for row in rows for each in row)
    lines = [[f'{each.name:<{labels}}  {each.purpose.replace(chr(96), "")}' for each in row] for row in rows]
    width = max(len(line) for row in lines for line in row)
    rule = '─' * (width + 2)
    boxes = f'\n├{rule}┤\n'.join('\n'.join(f'│ {line:<{width}} │' for line in row) for row in lines)
    return f'```text\n┌{rule}┐\n{boxes}\n└{rule}┘\n```\n'


def tables() -> str:
    """:return: a section for each room, from the top of the house to the ground; the ground's files share the last."""
    names = [name for row in storeys() for name in row]
    signs = [sign for name in names for sign in sorted((PACKAGE / name).glob('**/__init__.py'))]
    parts = [section(room(str(sign.parent.relative_to(PACKAGE)))) for sign in signs]
    ground = [(name, room(name).purpose) for name in names if is_module(name)]
    return '\n'.join([*parts, f'### the ground\n\n{table(ground)}'])


def section(each: Room) -> str:
    """:return: one room on one screen."""
    imports, importers = (
        ', '.join(f'`{name}`' for name in names) or none
        for names, none in ((each.imports, 'nothing'), (each.importers, 'no room'))
    )
    return (
        f'### {each.name}/\n\n{each.purpose}\n\n{table(each.modules)}\n'
        f'Imports {imports}.\n\nImported by {importers}.\n'
    )


def table(rows: tuple[tuple[str, str], ...] | list[tuple[str, str]]) -> str:
    """:return: the rows in Markdown."""
    lines = [f'| `{name}` | {words.replace("|", chr(92) + "|")} |' for name, words in rows]
    return '\n'.join(['| module | |', '|---|---|', *lines, ''])


def written(page: str) -> str:
    """:return: the page with its written parts made anew."""
    makers = {'picture': picture, 'rooms': tables}
    return PART.sub(lambda match: f'{match[1]}\n{makers[match[2]]()}\n{match[3]}', page)


if __name__ == '__main__':
    PAGE.write_text(written(PAGE.read_text()))
