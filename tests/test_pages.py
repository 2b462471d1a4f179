"""The pages agree with the code and with each other: links lead somewhere, and lists that the code has are whole.

The site's own check (`bin/docs`) finds the same dead links, and takes half a minute and Sphinx to find them.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from switchboard import errors
from switchboard.cli.app import switchboard
from switchboard.config.keys import OLD_SPELLINGS, QUEUE_KEYS
from tests.test_documentation import blocks_of, commands_of

ROOT = Path(__file__).resolve().parent.parent
TROUBLE = ROOT / 'docs' / 'howto' / 'troubleshooting.md'
PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')])
FENCED = re.compile(r'^ *```.*?^ *```[^`\n]*$', re.DOTALL | re.MULTILINE)
LINK = re.compile(r'\]\(\s*<?(?!https?:|mailto:)(?P<place>[^)#>\s]*)(?:#(?P<anchor>[^)>\s]+))?[^)]*\)')
HEADING = re.compile(r'^#{1,6} +(.+?) *$', re.MULTILINE)
PLACE = re.compile(r'<a id="([^"]+)"></a>')


def anchors(page: str) -> set[str]:
    """:return: what a link may end in behind ``#``: headings, as GitHub and the site name them, and marked places."""
    found: set[str] = set(PLACE.findall(page))
    for heading in HEADING.findall(FENCED.sub('', page)):
        text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading)
        slug = re.sub(r'[^\w\- ]', '', text.lower()).replace(' ', '-')
        found.add(slug if slug not in found else f'{slug}-1')
    return found


def dead_links(path: Path, root: Path = ROOT) -> Iterator[str]:
    for match in LINK.finditer(FENCED.sub('', path.read_text())):
        target = path if not match['place'] else (path.parent / match['place'])
        if not target.exists() or not target.resolve().is_relative_to(root):
            yield f'{match["place"]}: no such file'
        elif match['anchor'] and match['anchor'] not in anchors(target.read_text()):
            yield f'{match["place"]}#{match["anchor"]}: no such heading'


@pytest.mark.parametrize('path', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_something_that_is_there(path: Path) -> None:
    assert list(dead_links(path)) == []


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    (tmp_path / 'other.md').write_text('# Other things\n')
    page = tmp_path / 'page.md'
    page.write_text('[a](other.md) [b](other.md#other-things) [c](gone.md) [d](other.md#gone) [e](#gone)\n')
    assert list(dead_links(page, tmp_path)) == [
        'gone.md: no such file',
        'other.md#gone: no such heading',
        '#gone: no such heading',
    ]


# A row of a table whose first cell is one or more names.
NAMED = re.compile(r'^\| ((?:`[^`|]+`(?:, )?)+) \|', re.MULTILINE)
# Of a call of `event`: these levels are no trouble.
QUIET = {'logging.DEBUG', 'logging.INFO'}


def named_below(page: Path, heading: str) -> list[str]:
    """:return: the names in the first column of the table below a heading."""
    part = page.read_text().partition(f'\n## {heading}\n')[2].partition('\n## ')[0]
    return [name for cell in NAMED.findall(part) for name in re.findall(r'`([^`]+)`', cell)]


def log_words() -> tuple[set[str], set[str]]:
    """:return: the words of all log lines that may be of level warning or above, and all others."""
    every, loud = set(), set()
    for path in (*(ROOT / 'switchboard').rglob('*.py'), *(ROOT / 'runners').glob('*.py')):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == 'log_event':
                word = call.args[3]
                assert isinstance(word, ast.Constant)
                every.add(word.value)
                if ast.unparse(call.args[1]) not in QUIET:
                    loud.add(word.value)
    return loud, every - loud


def test_each_error_is_explained() -> None:
    classes = {
        each.__name__: each  # an alias is none
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.SwitchboardError)
    }
    branches = {name for name, each in classes.items() if each is errors.SwitchboardError}
    branches |= {'QueueError', 'RouteError', 'RunnerError', 'MasterError'}
    assert sorted(named_below(TROUBLE, 'Errors')) == sorted(set(classes) - branches)


def test_each_log_line_is_explained() -> None:
    loud, quiet = log_words()
    assert named_below(TROUBLE, 'Log lines') == sorted(loud)
    assert named_below(TROUBLE, 'Log lines that tell of no trouble') == sorted(quiet)


def test_a_glossary_has_a_word_once() -> None:
    words = re.findall(r'^\| ([^|]*?) \|', (ROOT / 'docs/reference/glossary.md').read_text(), re.MULTILINE)
    words = [word for word in words if word.startswith('**')]
    assert len(words) > 50
    assert len(words) == len(set(words))


# What people who come from elsewhere look for.
LOOKED_FOR = """
    at-least-once; exactly-once; acknowledgement; nack; requeue; redelivery; backpressure; backlog; circuit breaker; concurrency; consumer group; worker; cron; dead letter queue;
    poison message; deduplication; Docker; Kubernetes; encryption; pub/sub; fan-out; graceful shutdown; health check; readiness; high availability; cluster; replication; job; task; lease;
    visibility timeout; log rotation; outbox; partition; peek; privacy; workflow; prefetch; quota; retention; rate limit; throttling; replay; rolling restart; scheduled; throughput;
    timeout; web UI; dashboard; HTTP API; NFS; upgrade; uninstall; Windows; macOS
"""
ELSEWHERE = 'Words of other systems'


def test_a_word_of_another_system_leads_to_ours() -> None:
    text = (ROOT / 'docs/reference/glossary.md').read_text()
    ours, _, theirs = text.partition(f'\n## {ELSEWHERE}\n')
    rows = re.findall(r'^\| (.*?) \| (.*) \|$', theirs, re.MULTILINE)[1:]
    words = '; '.join(left for left, _ in rows).lower()
    assert [each for each in LOOKED_FOR.split(';') if ' '.join(each.split()).lower() not in words] == []
    defined = {
        word
        for cell in re.findall(r'^\| (\*\*.*?) \|', ours, re.MULTILINE)
        for word in re.findall(r'\w[\w ]*', cell)
    }
    named = [word for _, right in rows for word in re.findall(r'(?<!\*)\*([^*]+)\*(?!\*)', right)]
    assert len(named) > 15
    assert [each for each in named if each not in defined] == []
    assert [left for left, right in rows if not re.search(r'\*\w|`\w|\]\(', right)] == []


# Programs of a checkout's bin/: an installation has others in their place.
OF_A_CHECKOUT = re.compile(
    r'(?:^|[|;&({] *|\bdo )(?:\w+=\S* )*(?:bin/\S+|drop|master|runner|demo)\b(?= )', re.MULTILINE
)


@pytest.mark.parametrize(
    'path', [each for each in PAGES if each.is_relative_to(ROOT / 'docs')], ids=lambda each: each.name
)
def test_what_a_page_runs_is_what_an_installation_has(path: Path) -> None:
    commands = [
        command
        for block in blocks_of(path.read_text())
        if block.mark == 'run' and block.language == 'console'
        for _, command, _ in commands_of(block)
    ]
    assert [command for command in commands if OF_A_CHECKOUT.search(command)] == []


@pytest.mark.parametrize(
    'command', ['drop in <mail', 'printf x | drop in', 'bin/drop in', 'for x in a; do drop in $x; done']
)
def test_a_program_of_a_checkout_is_noticed(command: str) -> None:
    assert OF_A_CHECKOUT.search(command)
    assert not OF_A_CHECKOUT.search(command.replace('bin/', '').replace('drop', 'switchboard-drop'))


# Where a checkout, its code, or Mailman's own programs are meant.
MAY_NAME_CHECKOUT = {
    'install.md',
    'drop.md',
    'coming-from-mailman.md',
    'architecture.md',
    'benchmarks.md',
    'options.md',
}
IN_A_CHECKOUT = re.compile(r'`bin/(?:drop|master|runner)\b')


@pytest.mark.parametrize(
    'path',
    [
        each
        for each in PAGES
        if not {'changes', 'decisions'} & set(each.parts) and each.name not in MAY_NAME_CHECKOUT
    ],
    ids=lambda each: str(each.relative_to(ROOT)),
)
def test_a_page_calls_the_programs_as_an_installation_does(path: Path) -> None:
    assert IN_A_CHECKOUT.findall(path.read_text()) == []


def test_no_help_names_a_program_of_a_checkout() -> None:
    def helps(command: click.Command | None) -> Iterator[str]:
        assert command is not None
        yield command.help or ''
        yield from (each.help or '' for each in command.params if isinstance(each, click.Option))
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                yield from helps(command.get_command(context, name))

    found = list(helps(switchboard))
    assert len(found) > 200
    assert [text for text in found if IN_A_CHECKOUT.search(text)] == []


# Where old spellings are listed, or mean something else (an option of a URL, a module).
MAY_NAME_OLD_KEYS = {
    'docs/reference/configuration.md',
    'docs/reference/kombu.md',
    'docs/explanation/architecture.md',
    'CHANGELOG.md',
}
# Verbs of the command line, too.
VERBS = {'tidy', 'scale'}
# One that a runner's section had is still a queue's.
OLD_KEYS = {old for table in OLD_SPELLINGS.values() for old in table} - VERBS - QUEUE_KEYS.keys()


@pytest.mark.parametrize(
    'page',
    [page for page in PAGES if not {'changes', 'decisions'} & set(page.parts)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_a_page_uses_the_keys_and_the_modules_of_today(page: Path) -> None:
    text = page.read_text()
    name = str(page.relative_to(ROOT))
    if name not in MAY_NAME_OLD_KEYS:
        assert (
            set(re.findall(r'`([a-z_]+)`', text) + re.findall(r'^([a-z_]+) *=', text, re.MULTILINE))
            & OLD_KEYS
            == set()
        )
    package = ROOT / 'switchboard'
    rooms = {path.parent.name for path in package.glob('*/__init__.py')}
    named = [
        match
        for match in re.findall(r'`(?:switchboard/)?([a-z_]+)/([a-z_]+)(?:\.py)?`', text)
        if match[0] in rooms
    ]
    assert [each for each in named if not list(package.glob(f'{each[0]}/{each[1]}*'))] == []


# Names of ours with a dot in them that are no modules: a file, and attributes of spans.
NO_MODULES = {'switchboard.cfg', 'switchboard.attempt', 'switchboard.outcome'}
DOTTED = re.compile(r'`(?:from )?(switchboard(?:\.\w+)+)(?:(?::| import )(\w+(?:, \w+)*))?`')


def names_that_cannot_be_imported(page: str) -> list[str]:
    found = []
    for module, names in DOTTED.findall(page):
        for name in (f'{module}.{each}' if each else module for each in names.split(', ')):
            if name not in NO_MODULES and not can_be_imported(name):
                found.append(name)
    return found


def can_be_imported(name: str) -> bool:
    try:
        importlib.import_module(name)
        return True
    except ImportError:
        module, _, attribute = name.rpartition('.')
    try:
        found = importlib.import_module(module)
    except ImportError:
        return False
    # What needs another program, as Mailman's plugin does, is looked up when it is asked for.
    return attribute in getattr(found, '__all__', ()) or hasattr(found, attribute)


@pytest.mark.parametrize('path', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_name_of_ours_on_a_page_can_be_imported(path: Path) -> None:
    assert names_that_cannot_be_imported(path.read_text()) == []


def test_a_name_that_cannot_be_imported_is_noticed() -> None:
    page = 'See `switchboard.replies.Replies`, `from switchboard.spool import Spool, Spoon`, `switchboard.spool.spool:Spool`.'
    assert names_that_cannot_be_imported(page) == ['switchboard.replies.Replies', 'switchboard.spool.Spoon']


# Read by administrators at night, and by newcomers: a sentence there is understood at once.
READ_AT_NIGHT = ('README.md', 'docs/tutorial/', 'docs/howto/')
# A sentence that says what it is about begins with it.  A question may begin so, and a heading.
BEGINS_WITHOUT_A_NOUN = re.compile(
    r'(?:^|(?<=[.!:;] )|(?<=\| )|(?<=[-*] )|(?<=\*\*))(?:Who|Whom|Whose|Whoever|Those|Which|What)\b(?![^.|!]*\?)'
)


def sentences_without_a_noun(page: str) -> list[str]:
    """:return: the sentences, list items and cells of a page that begin with a pronoun in the place of a noun."""
    found = []
    for paragraph in re.split(r'\n{2,}', FENCED.sub('', page)):
        for line in re.sub(r'\n(?![|#*-]|\d+\. )', ' ', paragraph).splitlines():
            if not line.startswith(('#', '- [')):
                found += [
                    line[match.start() : match.start() + 60] for match in BEGINS_WITHOUT_A_NOUN.finditer(line)
                ]
    return found


def broken_tables(page: str) -> list[str]:
    """:return: lines of tables without a head above them, or with another number of cells; they are shown as text."""
    found, above = [], ''
    lines = FENCED.sub('', page).splitlines()
    for line, below in zip(lines, [*lines[1:], ''], strict=True):
        if line.startswith('|'):
            cells = len(re.findall(r'(?<!\\)\|', line))
            if not above.startswith('|'):
                wanted = cells
                if not re.fullmatch(r'\|[ :|-]+\|', below):
                    found.append(line)
            if cells != wanted:
                found.append(line)
        above = line
    return found


@pytest.mark.parametrize(
    'page',
    [page for page in PAGES if not {'changes', 'decisions'} & set(page.parts)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_a_page_begins_its_sentences_with_what_they_are_about_and_has_whole_tables(page: Path) -> None:
    text = page.read_text()
    assert broken_tables(text) == []
    if str(page.relative_to(ROOT)).startswith(READ_AT_NIGHT):
        assert sentences_without_a_noun(text) == [], 'begin these with a noun'


def test_a_riddle_and_a_broken_table_are_noticed() -> None:
    assert sentences_without_a_noun('# What is this\n\nIs it? What is it? A queue.\n') == []
    assert sentences_without_a_noun(
        'A queue. What waits in it\nis kept.\n\n- Whoever reads\n\n| a | What b |\n'
    ) == [
        'What waits in it is kept.',
        'Whoever reads',
        'What b | ',
    ]
    assert broken_tables('| a | b |\n|---|---|\n| `x \\| y` | b |\n') == []
    assert broken_tables('| a | b |\n|---|---|\n| c |\n\n| d | e |\n') == ['| c |', '| d | e |']


def test_a_change_has_no_links_for_it_is_copied_to_another_place() -> None:
    linked = [
        page.name
        for page in (ROOT / 'docs' / 'changes').glob('*.md')
        if re.search(r'\]\(\.', page.read_text())
    ]
    assert linked == []
