"""What is installed where, as setup.cfg, the constraints and the pages say it: they must agree."""

from __future__ import annotations

import configparser
import importlib
import re
import subprocess
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from switchboard.master.loading import find_class
from switchboard.options import RunnerOptions

ROOT = Path(__file__).resolve().parent.parent
# Extras that are no library of the package: tools.
TOOLS = {'test', 'bench', 'dev', 'docs', 'release', 'build'}
KINDS = {
    'core': [''],
    'test': ['', 'lmtp', 'metrics', 'msgpack', 'tracing', 'yaml', 'web', 'test', 'dev', 'docs', 'build'],
    'docs': ['', 'docs', 'build'],
    'release': ['', 'release', 'build'],
}
# Names that other programs, configurations and deployed services rely on; decision 21 lists them.  Each stays where it is.
PINNED = {
    'switchboard': 'AsyncRunner Runner Spool Switchboard',
    'switchboard.cli': 'main master runner',
    'switchboard.errors': 'AlreadyRunningError AmbiguousEntryError BrokerDownError ConfigError ConfigErrors '
    'ContentDisallowedError CorruptEntryError DestinationDown DurabilityError EntryExpiredError '
    'EntryTakenError ExchangeInUseError ExchangeMismatchError ForeignFileError LockTimeoutError '
    'MasterError MessageTooLargeError NoAnswerError NoRouteError NotListableError NotRunningError '
    'OutputsNeverFitError PermanentFailure QueueError QueueFullError QueueInUseError QueueLockedError '
    'QueueMismatchError QueuePausedError ReplyTimeoutError ResultError RouteError RouteLoopError '
    'RunnerError ScoreboardError SelectionError SelectionGrewError SwitchboardError TemporaryFailure '
    'UnknownEntryError UnknownExchangeError UnknownQueueError UnserializableError',
    'switchboard.extra.brokers': 'BrokerQueue BrokerUrl connect read_broker_url',
    'switchboard.extra.kombu': 'Channel Transport content',
    'switchboard.extra.kombu_alias': 'CONTENT_TYPE NAME SERIALIZER TRANSPORT register',
    'switchboard.filestore': 'FileStore',
    'switchboard.interfaces': 'IFileStore IRunner ISerializer ISpool ISwitchboard ITransaction Taken',
    'switchboard.mailman': 'Plugin install',
    'switchboard.options': 'QueueOptions RunnerOptions',
    'switchboard.runner': 'AsyncRunner Runner',
    'switchboard.runner.api': 'Setting Template',
    'switchboard.runners.smtp': 'Smtp',
    'switchboard.spool': 'Replies Spool',
    'switchboard.testing': 'FakeClock FaultyDisk MemorySpool MemorySwitchboard PowerLossDisk Signal run_until_empty',
}
# Words that would bring somebody else's distribution of our name.
WRONG = re.compile(r'pip3? install [^\n`]*?(?<![\w/.-])switchboard(?!-queue)(?=[\[\s\'"`]|$)', re.MULTILINE)


def requirements() -> dict[str, list[Requirement]]:
    """:return: by extra; the empty name is what is always needed."""
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    texts = {'': config['options']['install_requires'], **config['options.extras_require']}
    return {
        extra: [Requirement(line) for line in text.splitlines() if line.strip() and not line.startswith('#')]
        for extra, text in texts.items()
    }


def pinned(kind: str) -> dict[str, set[str]]:
    """:return: the versions of each distribution in a file of constraints; Pythons may differ in theirs."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(
        r'^([\w.-]+)==([^\s;\\]+)', (ROOT / 'constraints' / f'{kind}.txt').read_text(), re.M
    ):
        found.setdefault(canonicalize_name(name), set()).add(version)
    return found


@pytest.mark.parametrize('kind', KINDS)
def test_what_a_checkout_installs_is_what_setup_cfg_allows(kind: str) -> None:
    versions = pinned(kind)
    for extra in KINDS[kind]:
        for requirement in requirements()[extra]:
            found = versions[canonicalize_name(requirement.name)]
            assert all(requirement.specifier.contains(version) for version in found), (requirement, found)


@pytest.mark.parametrize('kind', KINDS)
def test_each_file_that_a_checkout_installs_is_known_by_its_hash(kind: str) -> None:
    blocks = re.split(r'^(?=\S)', (ROOT / 'constraints' / f'{kind}.txt').read_text(), flags=re.MULTILINE)
    assert [block for block in blocks if block.strip() and '--hash=sha256:' not in block] == []


def test_an_extra_has_code_that_uses_it() -> None:
    source = '\n'.join(
        path.read_text() for folder in ('switchboard', 'runners') for path in (ROOT / folder).rglob('*.py')
    )
    imported = set(re.findall(r'^\s*(?:import|from) (\w+)', source, re.MULTILINE))
    imported |= set(re.findall(r"import_module\('(\w+)", source)) | set(
        re.findall(r"\('(amqp|redis)', '", source)
    )
    names: dict[str, set[str]] = {}
    for module, distributions in packages_distributions().items():
        for each in distributions:
            names.setdefault(canonicalize_name(each), set()).add(module)
    for extra, needed in requirements().items():
        for each in needed if extra not in TOOLS else ():
            modules = names.get(canonicalize_name(each.name), {each.name})
            assert modules & imported, f'nothing imports {each.name} of [{extra}]'


def test_the_page_about_installing_names_each_extra() -> None:
    page = (ROOT / 'docs' / 'howto' / 'install.md').read_text()
    assert [
        extra for extra in requirements() if extra and extra not in TOOLS and f'[{extra}]' not in page
    ] == []


@pytest.mark.parametrize(('module', 'names'), PINNED.items(), ids=PINNED)
def test_names_that_others_rely_on_are_where_they_were(module: str, names: str) -> None:
    found = importlib.import_module(module)
    # Mailman need not be there: its names are looked up when they are asked for.
    has = (
        found.__all__
        if module == 'switchboard.mailman'
        else [name for name in names.split() if hasattr(found, name)]
    )
    assert set(names.split()) - set(has) == set()


def test_every_module_that_programs_may_rely_on_has_pinned_names() -> None:
    page = (ROOT / 'docs' / 'reference' / 'python.md').read_text().partition('```python')[0]
    promised = re.findall(r'^\| `(?:from )?(switchboard[.\w]*)', page, re.MULTILINE)
    assert len(promised) > 5
    assert set(promised) <= PINNED.keys()
    decision = (ROOT / 'docs' / 'decisions' / '0021-a-house-of-rooms.md').read_text()
    assert [name for name in PINNED if f'`{name}`' not in decision and f'`{name}:' not in decision] == []


def test_a_section_may_call_a_shipped_runner_by_its_former_name() -> None:
    found = find_class(RunnerOptions('out', 'runners.smtp:Smtp', 'out'))
    assert found is importlib.import_module('switchboard.runners.smtp').Smtp


def test_nothing_tells_to_install_what_is_somebody_elses() -> None:
    folders = ('docs', 'etc', 'switchboard', 'runners', 'bin')
    files = [
        path
        for folder in folders
        for path in (ROOT / folder).rglob('*')
        if path.is_file() and path.suffix != '.pyc'
    ]
    texts = {
        path: path.read_text(errors='replace')
        for path in [*files, ROOT / 'README.md', ROOT / 'CONTRIBUTING.md']
    }
    assert {
        str(path.relative_to(ROOT)): WRONG.findall(text) for path, text in texts.items() if WRONG.search(text)
    } == {}


@pytest.mark.parametrize(
    'text',
    ['pip install switchboard', "pip install 'switchboard[kombu]' celery", 'pip install -U switchboard\n'],
)
def test_the_wrong_name_is_noticed(text: str) -> None:
    assert WRONG.search(text)


def test_the_right_name_and_a_path_are_let_be() -> None:
    assert not WRONG.search("pip install 'switchboard-queue[kombu]'\npip install ./switchboard\n")


# What `-c` and `-m` import comes from the working directory first, where an operator may have a `types.py` or `email.py`.
IMPORTS = re.compile(
    r'^.*"\$(?:python|candidate|base_python)"(?! -m pytest)(?P<options>[^;|&]*?) -[cm] .*$', re.MULTILINE
)


def test_no_program_of_a_checkout_imports_what_lies_in_the_working_directory() -> None:
    seen, wrong = 0, []
    for path in sorted(each for each in (ROOT / 'bin').iterdir() if each.is_file() and each.suffix != '.py'):
        text = path.read_text()
        if 'cd "$root"' in text:
            continue
        for match in IMPORTS.finditer(text):
            seen += 1
            if not re.search(r' -[PI]\b', match['options']):
                wrong.append(f'{path.name}: {match[0].strip()}')
    assert seen > 8
    assert wrong == []


def test_each_program_of_a_checkout_is_read_by_the_shell_to_its_end() -> None:
    """A shell runs a program as far as it can read it, and an apostrophe in the wrong place shows at the end."""
    programs = [ROOT / '.ci' / 'run', *sorted(each for each in (ROOT / 'bin').iterdir() if each.is_file())]
    shell = [path for path in programs if path.read_bytes().startswith(b'#!/bin/sh') or path.name == '_setup']
    assert len(shell) > 8
    for path in shell:
        read = subprocess.run(['/bin/sh', '-n', str(path)], capture_output=True, text=True, check=False)
        assert (read.returncode, read.stderr) == (0, ''), path.name
