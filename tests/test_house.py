"""The rules of the house that no tool knows: how large a room may be, who may touch the disk, what lies at the top."""

from __future__ import annotations

import ast
import builtins
import io
import re
import subprocess
import tokenize
from collections import defaultdict
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from switchboard import errors
from switchboard.store.layout import BAD, TRASH
from tests import house_page

ROOT = Path(__file__).resolve().parent.parent

# A room of more wants a wall; the sign at the door counts, too.
FILES_MAX = 16

GROUND = {
    '__init__',
    '__main__',
    'clock',
    'daemonize',
    'drop_errors',
    'errors',
    'events',
    'filestore',
    'installing',
    'interfaces',
    'lazy',
    'options',
    'queue_defaults',
    'regular_file',
    'suggestions',
    'trace_context',
}
ROOMS = sorted(path.parent for path in (ROOT / 'switchboard').glob('*/**/__init__.py'))
FOLDERS = sorted(
    {path.parent for top in ('switchboard', 'runners', 'tests') for path in (ROOT / top).glob('**/*.py')}
)

# What stands at the top of the checkout, and nothing else.
TOP_LEVEL = {
    *('.ci', '.gitignore', '.pre-commit-config.yaml', 'CONTRIBUTING.md', 'LICENSE', 'README.md'),
    *('CHANGELOG.md', 'MANIFEST.in', 'SECURITY.md', 'constraints', 'pyproject.toml', 'setup.cfg', 'setup.py'),
    *('bin', 'docs', 'etc', 'runners', 'switchboard', 'tests'),
}

# What works on the spool leaves every touch of the file system to `disk`.  What is beside it (configuration, log, master) has
# files of its own, and what sleeps (`watch`) a pipe.
ROOMS_THROUGH_DISK = ('handoff', 'message', 'queue', 'routing', 'store')
SPOOL_MODULES = ('filestore', 'spool/spool')
NOT_THROUGH_DISK = {'store/disk', 'store/kernel', 'queue/watch'}

# Functions and values of `os` that ask about the process or work on text, and never on a file.
HARMLESS_OS = {
    *('environ', 'environb', 'getenv', 'getpid', 'getppid', 'getuid', 'geteuid', 'getgid', 'getegid'),
    *('fsdecode', 'fsencode', 'fspath', 'register_at_fork', 'strerror', 'urandom', 'uname'),
    *('DirEntry', 'PathLike', 'sep', 'stat_result', 'statvfs_result'),
}
HARMLESS_OS_PATH = {
    'abspath',
    'basename',
    'commonpath',
    'dirname',
    'isabs',
    'join',
    'normpath',
    'split',
    'splitext',
    'relpath',
}

# Modules whose business is the file system.
DISK_MODULES = {'fcntl', 'glob', 'mmap', 'shutil', 'tempfile'}

# Methods of `Path` that leave the realm of names.
PATH_METHODS = frozenset(
    'exists glob hardlink_to iterdir lstat mkdir read_bytes read_text resolve rglob rmdir symlink_to touch unlink '
    'write_bytes write_text'.split()
)


def tracked_files() -> list[Path]:
    """Every file that is part of the project: in the repository or about to be."""
    listing = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip('not a git checkout')
    return [ROOT / name.decode() for name in listing.stdout.split(b'\0') if name]


def test_only_the_ground_lies_flat_in_the_package() -> None:
    assert {path.stem for path in (ROOT / 'switchboard').glob('*.py')} == GROUND


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda path: path.name)
def test_a_folder_is_small(folder: Path) -> None:
    assert len([*folder.glob('*.py'), *folder.glob('*.c')]) <= FILES_MAX


@pytest.mark.parametrize('room', ROOMS, ids=lambda path: path.name)
def test_a_room_says_at_the_door_what_it_is_for(room: Path) -> None:
    files = [path for path in room.glob('*.py') if not path.name.startswith('__')]
    sign = ast.get_docstring(ast.parse((room / '__init__.py').read_text()))
    assert sign
    assert [path.stem for path in files if not re.search(rf'\b{path.stem}\b', sign)] == []


# What a sign says of imports: names from above to below, and who may come in.
IMPORTS = re.compile(
    r'\bIt imports (?:(?P<names>\w+(?:, \w+)*) and )?(?P<last>below|the ground|\w+)(?=[.:,])'
)
IMPORTERS = re.compile(
    r'\b(?:(?P<any>Any room above may)|(?P<none>No room)|Only (?P<names>[\w, ]+?)) imports? it\b'
)
# A room that so few import says which they are.
FEW = 3


def wrong_on_a_sign(sign: str, imports: tuple[str, ...], importers: tuple[str, ...]) -> Iterator[str]:
    """Compare the last words of a sign with the imports that there are."""
    text = ' '.join(sign.split())
    said, may = IMPORTS.search(text), IMPORTERS.search(text)
    if said is None or may is None:
        yield 'it does not say what it imports, and what may import it'
        return
    storeys = house_page.storeys()
    ground = {name for row in storeys for name in row if house_page.is_module(name)}
    place = {name: number for number, row in enumerate(storeys) for name in row}
    named = said['names'].split(', ') if said['names'] else []
    allowed = set(named)
    if said['last'] == 'below':
        allowed |= {name for name, number in place.items() if number > place[named[-1]]}
    elif said['last'] == 'the ground':
        allowed |= ground
    else:
        named.append(said['last'])
        allowed.add(said['last'])
    if named != sorted(named, key=place.__getitem__):
        yield f'not from above to below: {named}'
    yield from (f'imports {name}' for name in imports if name not in allowed)
    yield from (f'does not import {name}' for name in named if name not in imports)
    if may['any']:
        if len(importers) <= FEW:
            yield f'is imported by {importers} alone'
    elif set(re.findall(r'\b(?!and\b)\w+', may['names'] or '')) != set(importers):
        yield f'is imported by {importers}'


@pytest.mark.parametrize('room', ROOMS, ids=lambda path: path.name)
def test_a_room_says_at_the_door_what_it_imports_and_what_may_import_it(room: Path) -> None:
    each = house_page.room(str(room.relative_to(ROOT / 'switchboard')))
    rooms = tuple(name for name in each.importers if name != house_page.RUNNERS.name)
    assert list(wrong_on_a_sign(each.words, each.imports, rooms)) == []


@pytest.mark.parametrize(
    'sign',
    [
        'A room.  Any room above may import it.',
        'A room.  It imports store and below.',
        'A room.  It imports store and the ground.  Only web imports it.',
        'A room.  It imports status, store and below.  Only web imports it.',
        'A room.  It imports message, store and below.  Only web imports it.',
        'A room.  It imports store and below.  Only web and cli import it.',
        'A room.  It imports store and below.  Any room above may import it.',
        'A room.  It imports store and below.  No room imports it.',
    ],
)
def test_a_sign_that_is_wrong_is_noticed(sign: str) -> None:
    assert list(wrong_on_a_sign(sign, ('store', 'message', 'errors'), ('web',)))


def test_a_sign_that_is_right_is_let_be() -> None:
    sign = (
        'A room.  It imports store, message and the ground: for a reason.  Only web imports it: for another.'
    )
    assert list(wrong_on_a_sign(sign, ('store', 'message', 'errors'), ('web',))) == []


# The shipped runners are reached by a link, which import-linter does not follow.
RUNNER = re.compile(r'(?:switchboard\.)?runners\.(\w+)')


def runners_imported(source: str) -> set[str]:
    """:return: the files of the shipped runners that some code imports, by either of their names."""
    names = house_page.imported_names(ast.parse(source))
    return {found[1] for name in names if (found := RUNNER.match(name))}


def test_there_is_no_circle_among_the_shipped_runners() -> None:
    imports = {path.stem: runners_imported(path.read_text()) for path in ROOT.glob('runners/*.py')}
    assert imports['bridge'] >= {'bridge_in', 'bridge_remote'}
    TopologicalSorter(imports).prepare()


def test_nothing_in_the_package_imports_the_shipped_runners() -> None:
    paths = [path for path in ROOT.glob('switchboard/**/*.py') if path.parent.name != 'runners']
    assert len(paths) > 200
    assert [str(path) for path in paths if runners_imported(path.read_text())] == []


def test_a_circle_among_runners_is_noticed() -> None:
    one = runners_imported('def f():\n    from switchboard.runners import two\n')
    two = runners_imported('if TYPE_CHECKING:\n    import runners.one\n')
    with pytest.raises(CycleError):
        TopologicalSorter({'one': one, 'two': two}).prepare()


def test_the_top_of_the_checkout_holds_what_it_should_and_nothing_else() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in tracked_files()} - TOP_LEVEL == set()


def test_every_link_leads_to_another_part_of_the_checkout() -> None:
    links = [path for path in tracked_files() if path.is_symlink()]
    assert links
    assert [
        path for path in links if path.readlink().is_absolute() or not path.resolve().is_relative_to(ROOT)
    ] == []
    assert [path for path in links if not path.exists()] == []


def test_every_program_in_bin_can_be_run() -> None:
    programs = [path for path in tracked_files() if path.parent == ROOT / 'bin' and path.name[0] != '_']
    assert programs
    assert [path.name for path in programs if not path.stat().st_mode & 0o111] == []


def touches_of_the_disk(tree: ast.AST) -> Iterator[str]:  # noqa: C901 - a table of patterns
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id='os'), attr=name) if name != 'path' and name.islower():
                if name not in HARMLESS_OS:
                    yield f'line {node.lineno}: os.{name}'
            case ast.Attribute(value=ast.Attribute(value=ast.Name(id='os'), attr='path'), attr=name):
                if name not in HARMLESS_OS_PATH:
                    yield f'line {node.lineno}: os.path.{name}'
            # With an opener, it is the opener that touches the disk.
            case ast.Call(func=ast.Name(id='open'), keywords=words) if 'opener' not in {
                word.arg for word in words
            }:
                yield f'line {node.lineno}: open()'
            case ast.Call(func=ast.Attribute(attr=name)) if name in PATH_METHODS and not of_disk(node.func):
                yield f'line {node.lineno}: .{name}()'
            case ast.ImportFrom(module='os' | 'os.path', names=aliases):
                for alias in aliases:
                    if alias.name not in HARMLESS_OS | HARMLESS_OS_PATH:
                        yield f'line {node.lineno}: from os import {alias.name}'
            case ast.Import(names=aliases):
                for alias in aliases:
                    if alias.name in DISK_MODULES:
                        yield f'line {node.lineno}: import {alias.name}'
            case ast.ImportFrom(module=str(module)) if module in DISK_MODULES:
                yield f'line {node.lineno}: from {module} import'


def of_disk(func: ast.expr) -> bool:
    """``disk.mkdir()`` and ``self._disk.mkdir()`` are the very way to go."""
    assert isinstance(func, ast.Attribute)
    owner = func.value
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ''
    return name.lstrip('_').endswith('disk')


def modules_through_disk() -> list[Path]:
    package = ROOT / 'switchboard'
    names = {f'{room}/{path.stem}' for room in ROOMS_THROUGH_DISK for path in (package / room).glob('*.py')}
    return [package / f'{name}.py' for name in sorted({*names, *SPOOL_MODULES} - NOT_THROUGH_DISK)]


@pytest.mark.parametrize('path', modules_through_disk(), ids=lambda path: path.stem)
def test_a_module_of_the_spool_touches_the_file_system_through_disk_only(path: Path) -> None:
    assert list(touches_of_the_disk(ast.parse(path.read_text(), str(path)))) == []


@pytest.mark.parametrize(
    'source',
    [
        'import os\nos.rename("a", "b")',
        'import os.path\nos.path.exists("a")',
        'from os import unlink',
        'import shutil',
        'from tempfile import mkstemp',
        'open("a")',
        'path.read_bytes()',
    ],
)
def test_a_touch_of_the_file_system_is_noticed(source: str) -> None:
    assert list(touches_of_the_disk(ast.parse(source)))


@pytest.mark.parametrize(
    'source',
    [
        'import os\nos.getpid()',
        'import os\nos.path.join("a", "b")',
        'self._disk.mkdir("a")',
        'import os\nos.O_RDONLY',
        'queue.open("a")',
        'open("a", opener=opener)',
    ],
)
def test_what_does_not_touch_the_file_system_is_let_be(source: str) -> None:
    assert list(touches_of_the_disk(ast.parse(source))) == []


LOG_LEVELS = {'debug', 'info', 'warning', 'error', 'exception', 'critical', 'log'}


def test_every_line_of_the_log_is_an_event_with_a_word_that_grep_finds() -> None:
    for path in (*ROOT.glob('switchboard/**/*.py'), *ROOT.glob('runners/*.py')):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            match call.func:
                case ast.Name(id='event'):
                    assert isinstance(call.args[3], ast.Constant), (
                        f'{path}:{call.lineno}: the word is to be found by grep'
                    )
                case ast.Attribute(value=ast.Name(id='log' | 'logger'), attr=level) if level in LOG_LEVELS:
                    assert path.name in ('events.py',), f'{path}:{call.lineno}: log by `event`'


# A sentence names what it is about: a docstring begins with a noun or a verb, and a pronoun does not stand where the noun is wanted.
FIRST_WORD = re.compile(
    r'(What|Who|Whom|Whose|Whoever|Those|They|It|He|How|When|Whether|Why|Where|Which'
    # A question has its noun as well: of a predicate's docstring, that is its subject.
    r'|(Is|Was|Does|Did|Has|Had|Are|Were) (it|they))\b'
)
PRONOUNS = re.compile(
    r':(return|param \w+|ivar \w+): (what|who|whose|whatever|whoever|those|it|they)\b'
    r'|\bwhoever|Whoever\b|\b(t|T)hose who\b|\b(for|of|to|by|with) who\b'
    r'|\b(w|W)ho (asks|looks|comes|opens|reads|takes|wants|writes|publishes|waits)\b'
    r'|\b(w|W)hat (is|was|are|were|has|had|can|cannot|could|must)\b'
    # One word for log, raise, print and signal hides which of them it is.
    r'|\btold\b'
)


def pronouns_without_a_noun(source: str) -> Iterator[str]:
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring is None:
                continue
            place = node.body[0]
            if FIRST_WORD.match(docstring):
                yield f'line {place.lineno}: begins with {docstring.split()[0]!r}'
            for number in range(place.lineno, (place.end_lineno or place.lineno) + 1):
                if found := PRONOUNS.search(lines[number - 1]):
                    yield f'line {number}: {found[0]!r}'
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (found := PRONOUNS.search(token.string)):
            yield f'line {token.start[0]}: {found[0]!r}'
    # Messages, help and the words of the log, which are all the strings that hold a blank.
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str) and ' ' in node.value.strip()):
            continue
        if found := PRONOUNS.search(node.value):
            yield f'line {node.lineno}: {found[0]!r}'


@pytest.mark.parametrize(
    'path',
    sorted((*ROOT.glob('switchboard/**/*.py'), *ROOT.glob('runners/*.py'))),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_docstrings_comments_and_messages_name_what_they_are_about(path: Path) -> None:
    assert list(pronouns_without_a_noun(path.read_text())) == []


@pytest.mark.parametrize(
    'source',
    [
        '"""What a queue holds."""',
        '"""How a queue is read."""',
        '"""Whether a queue is empty."""',
        '"""The loop, until it is told to stop."""',
        'def take():\n    """Take a message.\n\n    :return: what is next.\n    """',
        'class Claim:\n    """A claim, for whoever needs it."""',
        'x = 1  # what was stored stays',
        'raise ValueError(f"{path}: what is left cannot be told")',
    ],
)
def test_a_pronoun_without_a_noun_is_noticed(source: str) -> None:
    assert list(pronouns_without_a_noun(source))


def test_a_sentence_that_names_what_it_is_about_is_let_be() -> None:
    source = (
        '"""The entries of a queue, and the process that holds each.\n\n:return: whether it is empty.\n"""\n'
    )
    assert list(pronouns_without_a_noun(source)) == []


# In a command that a message advises, a name may hold blanks, and worse.
COMMAND = re.compile(
    '(?:`(?:cat|cd|chgrp|chmod|chown|cp|find|mkdir|mount|mv|rm|setfacl|switchboard|tail) [^`]*'
    r'|\b(?:chgrp|chmod|chown|setfacl|tail) [^`]*)$'
)


def names_without_quotes(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        before = ''
        for part in node.values if isinstance(node, ast.JoinedStr) else ():
            if isinstance(part, ast.Constant):
                before += str(part.value)
                continue
            assert isinstance(part, ast.FormattedValue)
            if COMMAND.search(before) and not ast.unparse(part.value).startswith('quoted('):
                yield f'line {node.lineno}: {ast.unparse(part.value)} in {before!r}'
            before += 'x'


@pytest.mark.parametrize(
    'path',
    sorted((*ROOT.glob('switchboard/**/*.py'), *ROOT.glob('runners/*.py'))),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_command_that_a_message_advises_quotes_its_names(path: Path) -> None:
    assert list(names_without_quotes(path.read_text())) == []


def test_a_name_without_quotes_in_an_advised_command_is_noticed() -> None:
    assert list(names_without_quotes("f'as root: chown -R --reference={spool} {quoted(own)}'"))
    assert list(names_without_quotes("f'stop it, and `cd {quoted(a)} && rm {b}`'"))
    assert not list(names_without_quotes("f'{spool}: `chmod go-w {quoted(spool)}` mends {spool}'"))


# A rule that is broken says which and why; nothing is left out of a measure of what was tested.
EXCEPTION = re.compile(r'#\s*(noqa|pragma: no cover|type: ignore)')
WITH_A_REASON = re.compile(
    r'# (noqa: [A-Z]+\d+(, ?[A-Z]+\d+)*|type: ignore\[[a-z, -]+\])\W+(?![A-Z]+\d)(?!noqa|type:)[a-zA-Z]'
)


def exceptions_without_a_reason(source: str) -> Iterator[str]:
    """Yield the comments that break a rule and do not say why."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if (
            token.type == tokenize.COMMENT
            and EXCEPTION.search(token.string)
            and not WITH_A_REASON.search(token.string)
        ):
            yield f'line {token.start[0]}: {token.string}'


def found_in(
    folders: tuple[str, ...], pattern: re.Pattern[str], find: Callable[[str], Iterator[str]]
) -> dict[str, list[str]]:
    """:return: of each file that has the pattern, what is found in its source."""
    return {
        str(path.relative_to(ROOT)): found
        for folder in folders
        for path in ROOT.glob(f'{folder}/**/*.py')
        if pattern.search(source := path.read_text()) and (found := list(find(source)))
    }


def test_each_exception_from_a_rule_has_its_reason_beside_it() -> None:
    assert found_in(('switchboard', 'runners', 'tests'), EXCEPTION, exceptions_without_a_reason) == {}


@pytest.mark.parametrize(
    'comment',
    [
        '# noqa',
        '# noqa: N802',
        '# noqa: N802, B018',
        '# pragma: no cover',
        '# type: ignore[misc]',
        '# type: ignore',
    ],
)
def test_an_exception_without_a_reason_is_noticed(comment: str) -> None:
    assert list(exceptions_without_a_reason(f'x = 1  {comment}\n'))
    for why in ("noqa: N802, B018 - another one's name", 'type: ignore[misc, arg-type]  # no stubs for it'):
        assert not list(exceptions_without_a_reason(f'x = 1  # {why}\n'))


PERHAPS_SLEEPS = re.compile(r'\.sleep\(|\bwait\(\d*\.\d')


def sleeps_without_a_reason(source: str) -> Iterator[str]:
    """Yield the calls that wait for a time and do not say why no event can be waited for, on their lines or above."""
    comments = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    for node in ast.walk(ast.parse(source)):
        match node:
            # A turn of a loop is no time, and an hour is never waited for.
            case ast.Call(func=ast.Attribute(attr='sleep'), args=[ast.Constant(value=0 | 600 | 3600)]):
                pass
            case ast.Call(func=ast.Attribute(value=ast.Name(id='time' | 'asyncio'), attr='sleep')):
                if comments.isdisjoint(range(node.lineno - 1, (node.end_lineno or node.lineno) + 1)):
                    yield f'line {node.lineno}: {ast.unparse(node)}'
            # A loop of looks is no less one because it waits for an event that does not come.
            case ast.While():
                for call in ast.walk(node):
                    match call:
                        case ast.Call(
                            func=ast.Attribute(attr='wait') | ast.Name(id='wait'),
                            args=[ast.Constant(value=float())],
                        ) if comments.isdisjoint(range(call.lineno - 1, (call.end_lineno or 0) + 1)):
                            yield f'line {call.lineno}: {ast.unparse(call)}'


def test_each_sleep_of_a_test_has_its_reason_beside_it() -> None:
    found = {
        str(path.relative_to(ROOT)): sleeps
        for path in ROOT.glob('tests/**/*.py')
        if PERHAPS_SLEEPS.search(source := path.read_text())
        and (sleeps := list(sleeps_without_a_reason(source)))
    }
    assert found == {}


def test_a_sleep_without_a_reason_is_noticed() -> None:
    assert list(sleeps_without_a_reason('import time\n# Before.\n\ntime.sleep(0.1)\n'))
    assert list(sleeps_without_a_reason('async def wait():\n    await asyncio.sleep(0.1)\n'))
    assert list(sleeps_without_a_reason('while not done:\n    assert not over.wait(0.01)\n'))
    assert list(sleeps_without_a_reason('while not over.wait(0.01):\n    look()\n'))
    assert not list(sleeps_without_a_reason('assert not over.wait(0.01)\n'))
    assert not list(sleeps_without_a_reason('time.sleep(0.1)  # any moment\n'))
    assert not list(sleeps_without_a_reason('async def turn():\n    await asyncio.sleep(0)\n'))


# A condition of a shell's loop stands in a line with it, and input that is read has an end.
SHELL_LOOP = re.compile(r'\b(?:until|while) (?!read\b)[^\n;]*; *do\b')


def test_no_shell_of_a_test_waits_without_a_bound() -> None:
    here = {ROOT / 'tests' / 'helpers' / 'waiting.py', Path(__file__)}  # `shell_until` has one
    found = [
        path.relative_to(ROOT)
        for path in ROOT.glob('tests/**/*.*')
        if path.suffix in ('.py', '.sh') and path not in here and SHELL_LOOP.search(path.read_text())
    ]
    assert found == []


def test_a_shell_that_waits_for_ever_is_noticed() -> None:
    assert SHELL_LOOP.search('until [ -s x ]; do sleep 0.1; done')
    assert SHELL_LOOP.search('while :; do sleep 600 & wait; done')
    assert not SHELL_LOOP.search('while read -r line; do echo "$line"; done')


# An error of these is one of many, and who passes it over says which it may be, or why it does not matter; a narrow one is named after its reason.
BROAD = {
    'ArithmeticError',
    'BaseException',
    'Error',
    'Exception',
    'OSError',
    'QueueError',
    'RedisError',
    'RuntimeError',
    'SMTPException',
    'SwitchboardError',
    'TypeError',
    'ValueError',
}
PASSED_OVER = re.compile(r'suppress\(|\bexcept\b[^\n]*:\n\s+(pass|continue)\n')
# The functions that say it in their docstrings, and do more than that.
SAID_ABOVE = {'chown_like_directory'}


def errors_passed_over_without_a_reason(source: str) -> Iterator[str]:
    """Yield the broad errors that are passed over, and no comment says why, nor the docstring of a function that does nothing else."""
    lines = source.splitlines()
    tree = ast.parse(source)
    explained = {
        statement
        for each in ast.walk(tree)
        if isinstance(each, ast.FunctionDef) and ast.get_docstring(each)
        for statement in each.body
        if len(each.body) == 2 or each.name in SAID_ABOVE
    }
    for node in ast.walk(tree):
        if node in explained:
            continue
        found: list[tuple[int, int, list[ast.expr]]] = []
        match node:
            case ast.Try(handlers=handlers):
                found = [
                    (one.lineno, one.end_lineno or 0, [one.type] if one.type else [])
                    for one in handlers
                    if all(isinstance(each, ast.Pass | ast.Continue) for each in one.body)
                ]
            case ast.With(items=items, body=[first, *_]):
                found = [
                    (node.lineno, first.lineno, item.context_expr.args)
                    for item in items
                    if isinstance(item.context_expr, ast.Call)
                    and ast.unparse(item.context_expr.func) in ('suppress', 'contextlib.suppress')
                ]
        for start, end, types in found:
            names = {
                each.attr if isinstance(each, ast.Attribute) else each.id
                for one in types
                for each in ast.walk(one)
                if isinstance(each, ast.Attribute | ast.Name)
            }
            if (names & BROAD or not types) and not any(
                '# ' in line for line in lines[max(0, start - 2) : end]
            ):
                yield f'line {start}: {", ".join(map(ast.unparse, types))}'


def test_each_broad_error_that_is_passed_over_has_its_reason_beside_it() -> None:
    assert (
        found_in(('bin', 'switchboard', 'runners', 'tests'), PASSED_OVER, errors_passed_over_without_a_reason)
        == {}
    )


@pytest.mark.parametrize(
    'source',
    [
        'try:\n    f()\nexcept OSError:\n    pass\n',
        'for x in y:\n    try:\n        f()\n    except (KeyError, socket.Error):\n        continue\n',
        'try:\n    f()\nexcept:\n    pass\n',
        'with contextlib.suppress(Exception):\n    f()\n    g()  # another matter\n',
        'def f():\n    """One thing."""\n    f()\n    with suppress(OSError):\n        f()\n',
    ],
)
def test_an_error_that_is_passed_over_without_a_reason_is_noticed(source: str) -> None:
    assert PASSED_OVER.search(source)
    assert list(errors_passed_over_without_a_reason(source))


@pytest.mark.parametrize(
    'source',
    [
        'try:\n    f()\nexcept OSError:\n    pass  # it has gone\n',
        'try:\n    f()\nexcept FileNotFoundError:\n    pass\n',
        'with suppress(OSError):  # it has gone\n    f()\n',
        'def f():\n    """It does not matter whether it is there."""\n    with suppress(OSError):\n        f()\n',
    ],
)
def test_an_error_that_is_passed_over_for_a_reason_is_let_be(source: str) -> None:
    assert not list(errors_passed_over_without_a_reason(source))


# What does no more than that is conftest's `spool`.
PLAIN_SPOOL = re.compile(
    r"return Spool\(tmp_path(?: / '\w+')?(?:, (?:durability=)?'lazy'|, clock=(?:clock|FakeClock\(\)))*\)"
)


def fixtures(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield the line and the name of each fixture, and what it does: its body, with what it names of its own source."""
    tree = ast.parse(source)
    own: dict[str, str] = {}
    for each in tree.body:
        match each:
            case (
                ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.Assign(targets=[ast.Name(id=name)])
            ):
                own[name] = ast.unparse(each)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(
            'fixture' in ast.unparse(each) for each in node.decorator_list
        ):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            named = {name.id for each in body for name in ast.walk(each) if isinstance(name, ast.Name)}
            shown = [
                *map(ast.unparse, node.decorator_list + body),
                *(own[name] for name in sorted(named & own.keys())),
            ]
            yield node.lineno, node.name, '\n'.join(shown)


def second_fixtures(sources: dict[str, str]) -> list[str]:
    """:return: the places of the fixtures that another one stands for already, or conftest's `spool`."""
    seen: dict[str, str] = {}
    found = []
    for place, source in sources.items():
        for line, name, body in fixtures(source):
            if name == 'spool' and PLAIN_SPOOL.fullmatch(body.partition('\n')[2]):
                found.append(f'{place}:{line}: {name} is in conftest.py')
            elif body in seen:
                found.append(f'{place}:{line}: {name} is in {seen[body]}')
            seen.setdefault(body, place)
    return found


def test_no_fixture_stands_twice() -> None:
    places = [ROOT / 'tests' / 'conftest.py', *sorted(ROOT.glob('tests/*/**/*.py'))]
    sources = {
        str(path.relative_to(ROOT)): source for path in places if 'fixture' in (source := path.read_text())
    }
    assert len(sources) > 100
    assert second_fixtures(sources) == []


@pytest.mark.parametrize(
    'body',
    [
        'def spool(config: Path) -> Spool:\n    """One."""\n    return Spool.from_config(config)',
        "def spool(tmp_path: Path) -> Spool:\n    return Spool(tmp_path / 'spool', 'lazy')",
        "def spool(tmp_path: Path) -> Any:\n    return Spool(tmp_path, durability='lazy', clock=FakeClock())",
        'def clock() -> Clock:\n    return FakeClock()',
        'def time() -> Clock:\n    return FakeClock()',
    ],
)
def test_a_second_fixture_is_noticed(body: str) -> None:
    theirs = '@pytest.fixture\ndef spool(at: Path) -> Any:\n    return Spool.from_config(config)\n\n'
    theirs += '@pytest.fixture\ndef clock() -> FakeClock:\n    """It is turned."""\n    return FakeClock()\n'
    in_a_class = '\n    '.join(['class TestIt:', '@pytest.fixture', *body.split('\n')])
    assert second_fixtures({'a': theirs}) == []
    assert len(second_fixtures({'a': theirs, 'b': f'@pytest.fixture\n{body}\n'})) == 1
    assert len(second_fixtures({'a': theirs, 'b': in_a_class})) == 1


PRIVATE = re.compile(r'(?:.*\.)?_[^_]\w*')
SETTERS = {'__setattr__', '__delattr__', 'setattr', 'delattr', 'patch', 'object'}
# Where there is none of these there is nothing to find, and nothing need be parsed.
PERHAPS_PRIVATE = re.compile(
    r"(?<!\bself)(?<!\bcls)\._[a-zA-Z]|self\._\w+ [^ =]+=|['\"](?:[\w.]*\.)?_[a-zA-Z]\w*['\"]"
)
# Of the messages of the standard library: programs set it, and such a message is stored as they have made it.
SET_BY_PROGRAMS = {'_payload'}


def private_attributes_set(source: str) -> Iterator[str]:
    """Yield each private attribute that is set of something else than ``self``, or that no class of the same source has begun with."""
    tree = ast.parse(source)
    own = {
        aim.attr
        for each in ast.walk(tree)
        if isinstance(each, ast.Assign | ast.AnnAssign)
        for target in (each.targets if isinstance(each, ast.Assign) else [each.target])
        for aim in ast.walk(target)
        if isinstance(aim, ast.Attribute) and ast.unparse(aim.value) in ('self', 'cls')
    }
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=owner, attr=name, ctx=ast.Store() | ast.Del()) if PRIVATE.fullmatch(
                name
            ):
                if ast.unparse(owner) not in ('self', 'cls') or name not in own:
                    yield f'line {node.lineno}: {ast.unparse(node)}'
            case ast.Call(func=ast.Name(id=setter) | ast.Attribute(attr=setter), args=arguments) if (
                setter in SETTERS
            ):
                for each in arguments[:2]:
                    if (
                        isinstance(each, ast.Constant)
                        and isinstance(each.value, str)
                        and PRIVATE.fullmatch(each.value)
                        and each.value not in SET_BY_PROGRAMS
                    ):
                        yield f'line {node.lineno}: {ast.unparse(node)}'


def test_no_test_sets_a_private_attribute() -> None:
    assert found_in(('tests',), PERHAPS_PRIVATE, private_attributes_set) == {}


@pytest.mark.parametrize(
    'line',
    [
        'spool._disk = disk',
        'spool.disk._count += 1',
        'del spool._disk',
        'a, spool._disk = b',
        'with x() as spool._disk: pass',
        "monkeypatch.setattr(spool, '_disk', disk)",
        "monkeypatch.setattr('switchboard.store.disk._open', open)",
        "monkeypatch.delattr(spool, '_disk')",
        "setattr(spool, '_disk', disk)",
        "object.__setattr__(spool, '_disk', disk)",
        "mock.patch.object(spool, '_disk')",
        "mock.patch('switchboard.store.disk._open')",
        'class Ticking(FakeClock):\n    def now(self):\n        self._now_ns += 1',
    ],
)
def test_a_private_attribute_that_is_set_is_noticed(line: str) -> None:
    assert PERHAPS_PRIVATE.search(line)
    assert list(private_attributes_set(line))


@pytest.mark.parametrize(
    'line',
    [
        'spool.disk = disk',
        'x = spool._disk',
        "monkeypatch.setattr(spool, 'disk', other._disk)",
        "monkeypatch.setattr(kind, '__eq__', compare)",
        "setattr(msg, '_payload', 'text')",
        "getattr(spool, '_disk')",
        'class Counting:\n    def __init__(self):\n        self._count = 0\n    def more(self):\n        self._count += 1',
    ],
)
def test_what_sets_no_private_attribute_of_another_is_let_be(line: str) -> None:
    assert not list(private_attributes_set(line))


def tables_of_errors(source: str) -> Iterator[list[type]]:
    """Yield the classes of each table whose rows begin with one, which is read from the top until a row fits."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Tuple) and all(isinstance(row, ast.Tuple) and row.elts for row in node.elts):
            names = [ast.unparse(row.elts[0]).rpartition('.')[2] for row in node.elts]  # type: ignore[attr-defined]  # see above
            kinds = [getattr(errors, name, None) or getattr(builtins, name, None) for name in names]
            if len(found := [kind for kind in kinds if isinstance(kind, type)]) > 2:
                yield found


def dead_rows(kinds: list[type]) -> list[str]:
    """:return: the classes that no error gets to, because one above them takes it."""
    return [kind.__name__ for at, kind in enumerate(kinds) if issubclass(kind, tuple(kinds[:at]))]


def test_no_row_of_a_table_of_errors_stands_below_one_that_takes_its_errors() -> None:
    files = [*ROOT.glob('switchboard/**/*.py'), *ROOT.glob('runners/*.py')]
    tables = {
        path.relative_to(ROOT): table
        for path in files
        if 'Error,' in (source := path.read_text())
        for table in tables_of_errors(source)
    }
    assert len(tables) >= 3
    assert {path: dead for path, table in tables.items() if (dead := dead_rows(table))} == {}


def test_a_row_that_no_error_gets_to_is_noticed() -> None:
    table = '((errors.QueueFullError, 1), (OSError, 2), (FileNotFoundError, 3), (LockTimeoutError, 4))'
    (kinds,) = tables_of_errors(table)
    assert dead_rows(kinds) == ['FileNotFoundError']


# What has the same name and the same value and is another thing, by its name.
ALIKE = {
    'BATCH_LIMIT': 'files that are open for one flush, and messages that are packed before a broker is sent the first',
    'OWN_CLAIMS': 'the claims of a process on files, and those on messages of brokers',
    'COUNT_SHARE': 'the share of its time that a producer counts in, and the screen of `top`',
    'EXPIRES': 'the door for mails would load the rules of expiry for one word',
    'SIGNAL_CHECK_S': 'how late a signal is noticed by a sleep, and by a read: the door does not load what sleeps',
    'LATE_S': 'how late a look of an allowance is, and a turn of the master',
    'LOOKED_AT': 'the future entries of a reading, and the entries of a round of the janitor',
    'LOOKS': 'how often a limit is asked again, and a broker for what it is pushing',
    'LOOK_EVERY_NS': 'when a directory, a flag and a configuration are looked at again',
    'MAX_ROUNDS': 'how often a dead letter comes round, and a queue that is deleted is listed',
    'MAX_SHOWN': 'how much of a template an error shows, and how much of a routing key',
    'MAX_TEXT': 'a field of a form, and a selection',
    'PROC': 'where the kernel puts its files',
    'PR_SET_CHILD_SUBREAPER': 'a number of the kernel: runners import nothing of the master',
    'PR_SET_PDEATHSIG': 'a number of the kernel: runners import nothing of the master',
}


def constants(source: str) -> Iterator[tuple[str, str]]:
    """Yield the name, without underscores before it, and the value of each constant of a module."""
    for node in ast.parse(source).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pairs = [(name, value)]
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                pairs = [(ast.unparse(name), value) for name, value in zip(names, values, strict=False)]
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pairs = [(name, value)]
            case _:
                continue
        for name, value in pairs:
            if name.isupper() and len(name) > 1 and name != 'TYPE_CHECKING':
                yield name.lstrip('_'), ast.unparse(value)


def test_a_constant_is_stated_once() -> None:
    files = defaultdict(list)
    for path in [*ROOT.glob('switchboard/**/*.py'), *ROOT.glob('runners/*.py')]:
        for constant in set(constants(path.read_text())):
            files[constant].append(str(path.relative_to(ROOT)))
    twice = {name: where for (name, _), where in files.items() if len(where) > 1}
    assert {name: where for name, where in twice.items() if name not in ALIKE} == {}
    assert ALIKE.keys() <= twice.keys()


def test_a_constant_is_found_however_it_is_written() -> None:
    source = "A_B, _C = 1, 'x'\nD: int = 2\nE_F = [\n    3]\nlog = 4\nG, H = pair\nT = TypeVar('T')\n"
    assert list(constants(source)) == [('A_B', '1'), ('C', "'x'"), ('E_F', '[3]')]


# Classes of one name that are two things, and why neither has another one.
CLASSES_ALIKE = {
    'Retry': 'an act beside `Move` and `Remove`; and a runner, whose name stands in configurations',
}


def types_defined(source: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of each class of a module, wherever it is defined, and of each other type that it gives a name."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ClassDef(name=name):
                found = [(name, node)]
            case ast.Module(body=body) | ast.If(body=body):
                found = [
                    (ast.unparse(one.targets[0]), one.value) for one in body if isinstance(one, ast.Assign)
                ]
            case _:
                found = []
        yield from (
            (name, ast.unparse(one)) for name, one in found if re.fullmatch('[A-Z]+[a-z][A-Za-z]*', name)
        )


def test_a_name_of_a_class_or_a_type_means_one_thing() -> None:
    files = defaultdict(list)
    for path in [*ROOT.glob('switchboard/**/*.py'), *ROOT.glob('runners/*.py')]:
        for name, text in set(types_defined(path.read_text())):
            files[name].append((text, str(path.relative_to(ROOT))))
    twice = {
        name: [path for _, path in found]
        for name, found in files.items()
        if len({text for text, _ in found}) > 1
    }
    assert {name: where for name, where in twice.items() if name not in CLASSES_ALIKE} == {}
    assert CLASSES_ALIKE.keys() <= twice.keys()


def test_a_name_of_a_class_or_a_type_is_found_wherever_it_is_defined() -> None:
    source = (
        'class A1: pass\nclass Ab: pass\nclass _B: pass\nif TYPE_CHECKING:\n    class Cd(Protocol): ...\n'
        "    Ef = dict[str, int]\ndef f():\n    class De: ...\n    Gh = 1\nFULL = 'x'\nT = TypeVar('T')\n"
    )
    assert {name for name, _ in types_defined(source)} == {'Ab', 'Cd', 'De', 'Ef'}


# Another thing than the queue of that name, or a place that may not import the word.
ANOTHER_BAD = {
    'switchboard/queue_defaults.py': 'the ground imports no room',
    'switchboard/master/housekeeping.py': 'a member of what the master is told',
    'switchboard/master/master.py': 'a member of what the master is told',
    'switchboard/operating/health.py': 'how bad an alarm is',
    'switchboard/web/pages.py': 'how bad an alarm is',
    'runners/bridge.py': 'a word of its setting',
    'switchboard/cli/app.py': 'a verb',
    'switchboard/cli/commands/status.py': 'how bad an alarm is',
    'switchboard/cli/commands/config.py': 'the words of a form',
}


def test_the_bad_queue_and_the_trash_are_called_by_their_constants() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in [*ROOT.glob('switchboard/**/*.py'), *ROOT.glob('runners/*.py')]
        if path.name != 'layout.py'
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in (BAD, TRASH)
    }
    assert found == ANOTHER_BAD.keys()
