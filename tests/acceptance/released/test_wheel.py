"""What is released, installed into a fresh environment without a checkout on its path, does what the documents say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from ast import literal_eval
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from switchboard.cli.app import VERBS
from tests.acceptance.released.wheel import BASE, ROOT, WAYS, Installed, built_once, pack
from tests.test_documentation import blocks_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Two of them a day: each installation takes as long as all else here.
IN_TURNS = pytest.mark.in_turns('by_each_way', WAYS, days=3, shared=True)
MAIL = 'Subject: hello\n\nfrom a pipe\n'


@pytest.fixture(scope='module')
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return built_once(tmp_path_factory)


@pytest.fixture(scope='module')
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp('installed'), built[1])


def test_the_source_holds_all_that_a_packager_needs(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    assert {
        'bin/drop',
        'bin/test',
        'docs/README.md',
        'tests/conftest.py',
        'etc/switchboard.cfg',
        'LICENSE',
    } <= names
    assert {'constraints/core.txt', 'CHANGELOG.md', 'SECURITY.md', '.ci/run'} <= names
    assert {'setup.py', 'switchboard/store/accelerator.c'} <= names
    assert {'bin/_backend.py', 'share/man/man1/switchboard-ls.1'} <= names


def test_a_wheel_of_the_source_needs_setuptools_alone_and_one_of_a_checkout_what_makes_the_man_pages(
    built: tuple[Path, Path],
) -> None:
    [released] = (built[0].parent / 'released').iterdir()
    assert needed_to_build(released) == set()
    assert {'click', 'click-man', 'zope.interface'} <= needed_to_build(built[0].parent / 'checkout')


def test_pip_makes_a_wheel_of_a_checkout_that_its_own_environment_has_as_an_editable_one(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    wheels, checkout, venv = built[0].parent, built[0].parent / 'checkout', tmp_path / 'venv'
    tools = tmp_path / 'tools'
    tools.mkdir()
    for name in ('setuptools', 'click-man'):
        pack(name, tools)
    subprocess.run([BASE, '-m', 'venv', '--without-pip', venv], check=True, timeout=120)
    [site] = venv.glob('lib/python*/site-packages')
    (site / 'editable.pth').write_text(f'{checkout}\n')
    pip = [sys.executable, '-m', 'pip', '--python', venv / 'bin' / 'python', 'wheel', '--no-index']
    options = ['--find-links', wheels, '--find-links', tools, '--no-deps', '--wheel-dir', tmp_path / 'made']
    environment = {key: value for key, value in os.environ.items() if not key.startswith(('PIP_', 'PYTHON'))}
    subprocess.run([*pip, *options, checkout], env=environment, timeout=240, check=True)
    [made] = (tmp_path / 'made').iterdir()
    with zipfile.ZipFile(made) as archive:
        assert any(name.endswith('/man1/switchboard-ls.1') for name in archive.namelist())


def needed_to_build(place: Path) -> set[str]:
    code = 'import sys; sys.path.insert(0, "bin"); import _backend; print(_backend.get_requires_for_build_wheel())'
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=place, capture_output=True, text=True, timeout=240, check=True
    )
    return {Requirement(each).name for each in literal_eval(done.stdout.splitlines()[-1])}


def test_the_wheel_holds_the_samples_and_nothing_that_is_not_its_own(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        names = archive.namelist()
    etc = {str(path.relative_to(ROOT / 'etc')) for path in (ROOT / 'etc').rglob('*') if path.is_file()}
    assert {name.partition('/samples/')[2] for name in names if '/samples/' in name} == etc
    tops = {name.partition('/')[0] for name in names}
    assert {top for top in tops if not top.startswith('switchboard_queue-')} == {'switchboard'}


@pytest.fixture(scope='module', params=WAYS)
def by_each_way(
    request: pytest.FixtureRequest, built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Installed]:
    return request.param, Installed(tmp_path_factory.mktemp(request.param), built[1], request.param)


@IN_TURNS
def test_from_init_to_a_mail_that_is_listed(by_each_way: tuple[str, Installed]) -> None:
    _, installed = by_each_way
    assert installed.run('switchboard', '--version').startswith('switchboard ')
    installed.run('switchboard', 'init', 'mail')

    def run(*words: str, input: str = '') -> str:
        return installed.run(*words, input=input, directory=installed.home / 'mail')

    run('switchboard', 'check')
    run('switchboard', 'pause', 'in')  # or its runner would take them
    run('switchboard', 'start')
    try:
        assert 'RUNNING' in run('switchboard', 'status')
        run('switchboard', 'drop', 'in', input=MAIL)
        run('switchboard-drop', 'in', '-C', 'etc/switchboard.cfg', input=MAIL)
        run(str(installed.python), '-m', 'switchboard', 'drop', 'in', input=MAIL)
        assert len(run('switchboard', 'ls', 'in', '--json').splitlines()) == 3
    finally:
        run('switchboard', 'stop')


# The end of the command that brings a library to each of them.
COMMANDS = {
    'venv': '/venv/bin/python -m pip install {}',
    'user': ' --user {}',
    'target': ' -m pip install --target {directory}/target {}',
    'pipx': 'pipx install --force {}',
    'uv': 'uv tool install {}',
    'debian': '/usr/bin/python3 -m pip install --break-system-packages {}',
}


@IN_TURNS
def test_where_a_library_is_missing_the_command_for_this_installation_is_named(
    by_each_way: tuple[str, Installed],
) -> None:
    way, installed = by_each_way
    code = 'from switchboard.message.serializers import Serializers; Serializers(["msgpack"])'
    program = f'try:\n    {code}\nexcept Exception as error:\n    print(error)'
    said = installed.run(installed.python, '-c', program).strip()
    wanted = COMMANDS[way].format("'switchboard-queue[msgpack]'", directory=installed.directory)
    assert said.endswith(wanted)


@IN_TURNS
def test_man_pages_and_completion_are_installed(by_each_way: tuple[str, Installed]) -> None:
    _, installed = by_each_way
    pages = set(
        re.findall(r'^(\S+)\.1$', installed.run('ls', installed.share / 'man' / 'man1'), re.MULTILINE)
    )
    assert {f'switchboard-{verb}' for verb in VERBS} <= pages
    assert {'switchboard', 'switchboard-drop', 'switchboard-master', 'switchboard-runner'} <= pages
    for place in ('zsh/site-functions/_switchboard', 'fish/vendor_completions.d/switchboard.fish'):
        assert '_SWITCHBOARD_COMPLETE' in installed.run('cat', installed.share / place)


def complete(installed: Installed, *words: str) -> list[str]:
    """:return: what bash offers for the last word, by the completion that is installed."""
    script = installed.share / 'bash-completion' / 'completions' / 'switchboard'
    line = ' '.join(f"'{word}'" for word in ('switchboard', *words))
    code = f"""
        . {script}
        COMP_WORDS=({line}) COMP_CWORD={len(words)}
        _switchboard_completion switchboard
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return installed.run('bash', '-c', code).split()


def test_bash_completes_verbs_options_queues_runners_exchanges_and_entries(installed: Installed) -> None:
    installed.run('switchboard', 'init', 'completed')
    config = 'completed/etc/switchboard.cfg'
    entry = installed.run('switchboard', '-C', config, 'enqueue', 'in', '--kind', 'text', input='x').strip()

    def completed(*words: str) -> list[str]:
        return complete(installed, '-C', config, *words)

    assert {'queues', 'status'} <= set(completed(''))
    assert completed('status', '--jso') == ['--json']
    assert {'in', 'lists', 'bad'} <= set(completed('ls', ''))
    assert completed('restart', 'arch') == ['archive']
    assert completed('route', 'mai') == ['mail']
    assert completed('show', entry[:12]) == [entry]


def test_a_runner_of_another_distribution_is_called_by_its_short_name(
    installed: Installed, tmp_path: Path
) -> None:
    about = 'shop_runners-1.0.dist-info'
    files = {
        'shop_runners.py': 'from switchboard import Runner\n\n\nclass Book(Runner):\n    def dispose(self, msg, msgdata):\n'
        "        self.emit('booked', msg.upper(), msgdata)\n",
        f'{about}/METADATA': 'Metadata-Version: 2.1\nName: shop-runners\nVersion: 1.0\n',
        f'{about}/WHEEL': 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
        f'{about}/entry_points.txt': '[switchboard.runners]\nbook = shop_runners:Book\n',
    }
    with zipfile.ZipFile(tmp_path / 'shop_runners-1.0-py3-none-any.whl', 'w') as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f'{about}/RECORD', ''.join(f'{name},,\n' for name in (*files, f'{about}/RECORD')))
        wheel = archive.filename
    assert wheel is not None
    installed.add(wheel)
    text = '[switchboard]\nspool = shop\n[queue.booked]\n[runner.book]\nclass = book\nqueue = orders\n'
    (installed.home / 'shop.cfg').write_text(text)

    def run(*words: str, input: str = '') -> str:
        return installed.run('switchboard', '-C', 'shop.cfg', *words, input=input)

    run('check', '--imports')
    run('init')
    run('enqueue', 'orders', '--kind', 'text', input='one book')
    run('run', 'book', '--until-empty')
    [name] = run('ls', 'booked', '--names').split()
    assert run('show', name, '--raw').strip() == 'ONE BOOK'


@pytest.mark.parametrize(
    'words',
    [
        ('switchboard-drop', 'piped', '-s', 'spool'),
        ('switchboard', '-s', 'spool', 'drop', 'piped'),
        ('switchboard', 'drop', 'piped', '-s', 'spool'),
        ('python', '-m', 'switchboard', '-s', 'spool', 'drop', 'piped'),
        ('python', '-m', 'switchboard.drop', 'piped', '-s', 'spool'),
    ],
    ids=' '.join,
)
def test_a_mail_through_a_pipe_is_stored_and_listed(installed: Installed, words: tuple[str, ...]) -> None:
    installed.run('python', '-c', "from switchboard import Spool; Spool('spool')['piped']")
    assert installed.run(*words, input=MAIL) == ''
    [line] = installed.run('switchboard', '-s', 'spool', 'ls', 'piped', '--json').splitlines()
    filebase = json.loads(line)['filebase']
    assert 'from a pipe' in installed.run('switchboard', '-s', 'spool', 'show', filebase)
    installed.run('switchboard', '-s', 'spool', 'mv', filebase, '-q', 'piped', 'bad')


def test_what_cannot_be_stored_is_tried_again_later(installed: Installed) -> None:
    for words in (('switchboard-drop',), ('python', '-m', 'switchboard.drop'), ('switchboard', 'drop')):
        installed.run(*words, 'in', '-s', '/nonexistent/spool', input=MAIL, status=75)


def test_every_sample_is_written(installed: Installed) -> None:
    for name in installed.run('switchboard', 'sample').splitlines():
        assert installed.run('switchboard', 'sample', name) == (ROOT / 'etc' / name).read_text()


def test_the_programs_are_there_and_say_what_they_are(installed: Installed) -> None:
    for name in ('switchboard', 'switchboard-master', 'switchboard-runner'):
        assert f'Usage: {name}' in installed.run(name, '--help')


def test_a_shipped_runner_is_found_by_its_short_name(installed: Installed) -> None:
    (installed.home / 'short.cfg').write_text(
        '[switchboard]\nspool = short\n[queue.in]\n[runner.nothing]\nclass = null\nqueue = in\n'
    )
    installed.run('switchboard', '-C', 'short.cfg', 'check', '--imports')


def test_the_tutorial_runs(installed: Installed) -> None:
    page = (ROOT / 'docs' / 'tutorial' / 'first-queue.md').read_text()
    code = [block.text for block in blocks_of(page) if block.language == 'python' and '>>>' in block.text]
    (installed.home / 'tutorial.txt').write_text('\n'.join(code))
    installed.run(
        'python',
        '-c',
        'import doctest, sys; sys.exit(bool(doctest.testfile("tutorial.txt", module_relative=False, '
        'optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL).failed))',
    )
