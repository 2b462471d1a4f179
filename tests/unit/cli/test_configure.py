"""``init``, ``check``, ``route``, ``graph``, ``version``, and how a configuration is found."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest

from switchboard import Spool
from switchboard.cli.app import VERB_GROUPS, VERBS, Verbs
from switchboard.cli.app import switchboard as group
from switchboard.cli.commands.config import FIRST_SPARES
from switchboard.cli.context import Installation
from switchboard.cli.exits import Exit
from switchboard.config.config import Config
from switchboard.master.directory import MasterDirectory, MasterLock
from switchboard.status.scoreboard import ProcessState, Scoreboard, SupervisorRecord
from tests.helpers.commands import fail, succeed, switchboard
from tests.helpers.processes import NOBODY, in_child

CONFIG = """\
[switchboard]
spool = spool
[runner.in]
class = jobs_of_check:Job
queue = in
colour = red
[queue.out]
consumed_externally = yes
"""
EXCHANGES = """\
[exchange.mail]
type = topic
bindings =
    lists.*.post -> in, out
[exchange.reports]
type = headers
bindings =
    all: format=pdf, urgent=true -> out
"""
JOBS = """
from switchboard import Runner
from switchboard.runner.settings import Setting
class Job(Runner):
    settings = {'colour': Setting()}
    def dispose(self, msg, msgdata):
        pass
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / 'exchange.cfg').write_text(EXCHANGES)
    path = tmp_path / 'switchboard.cfg'
    path.write_text(CONFIG)
    return path


@pytest.fixture(autouse=True)
def _no_configuration_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv('SWITCHBOARD_CONFIG', raising=False)
    monkeypatch.chdir(tmp_path)


def test_check_of_a_good_configuration_counts_what_is_there(config: Path) -> None:
    out = succeed('-C', config, 'check').out
    assert out == f'{config}: no mistakes (3 queues, 1 runner in 1 slice, 2 exchanges)\n'


def test_a_spool_that_the_first_start_has_made_is_as_good_as_one_of_init(tmp_path: Path) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text('[switchboard]\nspool = spool\n[runner.nothing]\nclass = null\nqueue = in\n')
    installation = Installation()
    installation.named_config = config
    installation.spool(make=True)
    assert 'no mistakes' in succeed('-C', config, 'check').out


def test_check_warns_of_queues_whose_section_was_removed(config: Path) -> None:
    spool = Config.load(config).spool
    succeed('-C', config, 'init')
    spool_of_all = Spool(spool)
    for name in ('renamed', 'removed'):
        _ = spool_of_all[name].files
    spool_of_all['renamed'].enqueue('waits')
    spool_of_all.declare('program')
    with_options = succeed('-C', config, 'check').out
    assert '1 entry in the queue renamed, which this configuration does not declare any more' in with_options
    assert f'`switchboard -C {config} mv --queue renamed --all QUEUE`' in with_options
    assert (
        f'an empty queue removed, which this configuration does not declare any more: `switchboard -C {config} delete removed`'
        in with_options
    )
    assert 'program' not in with_options
    assert 'not declared' not in switchboard('-C', config, 'tidy').err
    succeed('-C', config, 'mv', '--queue', 'renamed', '--all', 'in', '--yes')
    succeed('-C', config, 'tidy')
    for name in ('renamed', 'removed'):
        succeed('-C', config, 'delete', name)
    assert 'no mistakes' in succeed('-C', config, 'check').out


def test_check_warns_of_a_spool_in_which_one_user_shuts_out_another(config: Path) -> None:
    succeed('-C', config, 'init')
    assert 'no mistakes' in succeed('-C', config, 'check').out
    spool = Config.load(config).spool
    (spool / 'in').chmod(0o770)
    out = succeed('-C', config, 'check').out
    assert '[switchboard] spool: directories without the set-group-id bit (in): ' in out
    (spool / 'in').chmod(0o2700)
    out = succeed('-C', config, 'check').out
    assert '[switchboard] spool: directories that are not open to the group, as the spool is (in): ' in out
    if os.geteuid() == 0:
        os.chown(spool / 'in', 65534, 65534)
        assert 'of another user or group than the spool (in): ' in succeed('-C', config, 'check').out
        # Made by another member of the group, as the trash is by the first one who needs it.
        os.chown(spool / 'in', 65534, spool.stat().st_gid)
        (spool / 'in').chmod(0o2770)
        assert 'no mistakes' in succeed('-C', config, 'check').out
        spool.chmod(0o2700)
        assert 'of another user or group than the spool (in): ' in succeed('-C', config, 'check').out


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can be two users')
def test_whoever_starts_a_master_as_root_in_a_users_spool_is_told(config: Path) -> None:
    succeed('-C', config, 'init')
    spool = Config.load(config).spool
    with MasterDirectory(spool) as own:
        os.chown(spool, 65534, 65534)
        advice = f'`chown -R --reference={spool} {own.path}`'
        assert advice in succeed('-C', config, 'check').out
        with MasterLock(own):
            ran = switchboard('-C', config, 'start')
        assert 'belongs to user 65534: its runners now run as root' in ran.err
        assert advice in ran.err
        os.chown(own.path, 65534, 65534)
    assert advice not in succeed('-C', config, 'check').out


def test_check_names_links_in_the_place_of_queues(config: Path, tmp_path: Path) -> None:
    succeed('-C', config, 'init')
    spool = Config.load(config).spool
    (spool / 'in').rename(tmp_path / 'elsewhere')
    (spool / 'in').symlink_to(tmp_path / 'elsewhere')
    assert '[switchboard] spool: links in the place of queues (in): ' in succeed('-C', config, 'check').out


def test_a_link_that_cannot_be_followed_stops_neither_check_nor_init(config: Path) -> None:
    spool = Config.load(config).spool
    spool.mkdir(parents=True)
    # Refused for whoever looks, as one into another user's directory is for all but root.
    (spool / 'link').symlink_to('x' * 300)
    succeed('-C', config, 'check')
    succeed('-C', config, 'init')
    assert 'links in the place of queues (link): ' in succeed('-C', config, 'check').out


def test_check_has_nothing_against_a_spool_that_is_one_users_alone(config: Path) -> None:
    succeed('-C', config, 'init')
    spool = Config.load(config).spool
    for directory in (spool, spool / 'in'):
        directory.chmod(0o2700)
    assert 'no mistakes' in succeed('-C', config, 'check').out


def test_check_shows_all_mistakes_each_with_its_place(config: Path) -> None:
    config.write_text(CONFIG + 'ttl = 5\n[queue.x]\ncolor = red\n[runner.y]\n')
    ran = switchboard('-C', config, 'check')
    assert ran.status == Exit.CONFIG
    strange, *wrong, summed_up = ran.lines
    assert strange.startswith(f'warning: {config}:10 [queue.x]: nobody consumes')
    assert [line.partition(' ')[2].partition(':')[2][:2] for line in wrong] == ['9 ', '11', '12']
    assert all(line.startswith(f'error: {config}:') for line in wrong)
    assert summed_up == '3 errors, 1 warning'
    objects = switchboard('-C', config, 'check', '--json').objects
    assert [(each['level'], each['line'], each['section'], each['key']) for each in objects] == [
        ('warning', 10, 'queue.x', None),
        ('error', 9, 'queue.out', 'ttl'),
        ('error', 11, 'queue.x', 'color'),
        ('error', 12, 'runner.y', None),
    ]


def test_warnings_end_well_unless_they_are_to_count(config: Path) -> None:
    config.write_text(CONFIG + '[queue.lonely]\n')
    ran = succeed('-C', config, 'check')
    assert ran.lines[0].startswith(f'warning: {config}:9 [queue.lonely]: nobody consumes')
    assert '1 warning (' in ran.lines[1]
    assert switchboard('-C', config, 'check', '--strict').status == Exit.CONFIG


def test_check_can_import_the_runners(config: Path, tmp_path: Path) -> None:
    ran = switchboard('-C', config, 'check', '--imports')
    assert ran.status == Exit.CONFIG
    assert '[runner.in] class: cannot import jobs_of_check:Job: ModuleNotFoundError' in ran.out
    (tmp_path / 'jobs_of_check.py').write_text(JOBS)
    succeed('-C', config, 'check', '--imports')
    config.write_text(CONFIG.replace('colour', 'color'))
    ran = switchboard('-C', config, 'check', '--imports')
    assert ran.status == Exit.CONFIG
    assert '[runner.in] color: Job has no such key; did you mean colour?' in ran.out


def test_a_stop_that_does_not_wait_for_a_message_is_a_warning(config: Path) -> None:
    section = '[runner.in]\nclass = command\nqueue = in\ncommand = cat\ntimeout = {}\nstop_timeout = 1m\n'
    queues = '[queue.out]\nexternal = yes\n'
    config.write_text(CONFIG.split('[runner')[0] + section.format('10m') + queues)
    ran = succeed('-C', config, 'check', '--imports')
    assert 'warning' in ran.out
    assert '[runner.in] stop_timeout: a message may take 600 s, and a stop waits for 60 s' in ran.out
    config.write_text(CONFIG.split('[runner')[0] + section.format('1m') + queues)
    assert 'warning' not in succeed('-C', config, 'check', '--imports').out


def test_a_class_that_ends_the_program_is_a_mistake_too(config: Path, tmp_path: Path) -> None:
    (tmp_path / 'ends_the_program.py').write_text('raise SystemExit(3)')
    config.write_text(CONFIG.replace('jobs_of_check', 'ends_the_program'))
    ran = switchboard('-C', config, 'check', '--imports')
    assert ran.status == Exit.CONFIG
    assert 'ends the program with 3' in ran.out


def test_check_writes_the_doors_copy_of_a_good_configuration_only(config: Path, tmp_path: Path) -> None:
    copy = tmp_path / 'spool' / '.run' / 'queues'
    succeed('-C', config, 'init')
    copy.unlink()
    config.write_text(CONFIG + 'nonsense\n')
    assert switchboard('-C', config, 'check', '--write-drop-config').status == Exit.CONFIG
    assert not copy.exists()
    config.write_text(CONFIG)
    succeed('-C', config, 'check', '--write-drop-config')
    assert 'out' in copy.read_text()


def test_route_explains_each_step_and_names_the_queues(config: Path) -> None:
    lines = succeed('-C', config, 'route', 'mail', 'lists.dogs.post').lines
    assert lines[0].startswith('+ mail, line 4: lists.*.post -> in, out: matches')
    assert lines[-1] == 'in, out'
    ran = switchboard('-C', config, 'route', 'mail', 'lists.dogs.bounce')
    assert (ran.status, ran.lines[-1]) == (Exit.NO_ROUTE, 'nobody takes it')


def test_route_by_headers_takes_text_and_json(config: Path) -> None:
    words = ['-C', config, 'route', 'reports', '', '-H', 'format=pdf', '-H']
    assert succeed(*words, 'urgent:=true', '--json').objects[0]['delivered'] == ['out']
    assert switchboard(*words, 'urgent:=false').status == Exit.NO_ROUTE


def test_route_of_the_default_exchange_knows_whether_the_queue_exists(config: Path) -> None:
    assert succeed('-C', config, 'route', '', 'in').lines[-1] == 'in'
    ran = switchboard('-C', config, 'route', '', 'inn')
    assert ran.status == Exit.NO_ROUTE
    assert "there is no queue 'inn'" in ran.out
    assert switchboard('-C', config, 'route', 'nowhere', 'k').status == Exit.NO_INPUT


@pytest.mark.skipif(shutil.which('dot') is None, reason='Graphviz is not installed')
def test_graph_is_drawn_by_graphviz(config: Path) -> None:
    svg = ElementTree.fromstring(succeed('-C', config, 'graph', '--svg').out)
    titles = {title.text for title in svg.iter('{http://www.w3.org/2000/svg}title')}
    assert {'exchange:mail', 'queue:in', 'exchange:mail->queue:in'} <= titles


def test_without_graphviz_graph_says_what_to_do(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PATH', '/nonexistent')
    ran = switchboard('-C', config, 'graph', '--svg')
    assert ran.status != Exit.OK
    assert '--dot' in ran.err


def test_the_picture_in_the_manual_is_that_of_the_sample_configuration() -> None:
    root = Path(__file__).parents[3]
    graph = Config.load(root / 'etc' / 'switchboard.cfg').graph()
    svg = ElementTree.parse(root / 'docs' / 'reference' / 'graph.svg')
    titles = {title.text for title in svg.iter('{http://www.w3.org/2000/svg}title')}
    nodes = {f'{node.kind}:{node.name}' for node in graph.nodes}
    ways = {'->'.join(f'{kind}:{name}' for kind, name in (edge.source, edge.target)) for edge in graph.edges}
    assert titles == {'switchboard', *nodes, *ways}


def test_graph_is_text_dot_or_json(config: Path) -> None:
    assert 'exchange mail (topic)\n    lists.*.post -> in\n' in succeed('-C', config, 'graph').out
    assert succeed('-C', config, 'graph', '--dot').out.startswith('digraph switchboard {')
    nodes = [each['name'] for each in succeed('-C', config, 'graph', '--json').objects if 'node' in each]
    assert {'mail', 'in', 'out'} <= set(nodes)


def test_version_names_program_python_and_format() -> None:
    (versions,) = succeed('version', '--json').objects
    assert versions.keys() == {'switchboard', 'python', 'entry_format', 'accelerator'}
    assert versions['entry_format'] == 'switchboard/1'
    assert succeed('version').lines[0] == f'switchboard {versions["switchboard"]}'


def test_init_makes_a_configuration_that_is_good_and_its_spool(tmp_path: Path) -> None:
    ran = succeed('init', tmp_path / 'mail')
    config = Config.load(tmp_path / 'mail' / 'etc' / 'switchboard.cfg')
    made = {path.name for path in config.spool.iterdir() if not path.name.startswith('.')}
    assert made == set(config.queue_names())
    assert {stat.S_IMODE(path.stat().st_mode) for path in (config.spool, *config.spool.iterdir())} == {0o2770}
    assert 'switchboard start' in ran.err


@pytest.mark.parametrize(
    ('directory', 'step'), [('.', '`switchboard start`'), ('shop', '`cd shop && switchboard start`')]
)
def test_init_says_what_to_type_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str, step: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert succeed('init', directory).err.endswith(f', then {step}\n')


def test_a_note_acts_on_no_terminal(tmp_path: Path) -> None:
    err = succeed('init', tmp_path / 'bell\a').err
    assert '\a' not in err
    assert r'bell\x07/etc/switchboard.cfg, then' in err


def test_init_leaves_what_is_there_and_may_be_run_again(tmp_path: Path) -> None:
    config = tmp_path / 'mail' / 'etc' / 'switchboard.cfg'
    config.parent.mkdir(parents=True)
    config.write_text('[switchboard]\nspool = s\n[queue.mine]\n')
    assert succeed('init', tmp_path / 'mail').lines[0].startswith(f'made {config.parent / "s"} (')
    assert config.read_text().startswith('[switchboard]\nspool = s\n')
    assert (config.parent / 's' / 'mine').is_dir()
    assert succeed('-C', config, 'init').out == f'{config.parent / "s"}: all is there already\n'


def test_init_makes_a_bare_spool(tmp_path: Path) -> None:
    succeed('-s', tmp_path / 'bare', 'init')
    assert (tmp_path / 'bare' / 'bad').is_dir()
    assert switchboard('-s', tmp_path / 'bare', 'init', tmp_path / 'x').status == Exit.USAGE


def test_init_makes_files_for_the_first_messages(tmp_path: Path) -> None:
    succeed('-s', tmp_path / 'bare', 'init')
    spares = tmp_path / 'bare' / '.spare'
    assert len(list(spares.iterdir())) == FIRST_SPARES
    succeed('-s', tmp_path / 'bare', 'spares', 'empty')
    succeed('-s', tmp_path / 'bare', 'init')
    assert not list(spares.iterdir()), 'who has emptied them wants them empty'


def test_a_configuration_is_named_found_or_asked_for(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / 'here'
    (here / 'etc').mkdir(parents=True)
    monkeypatch.chdir(here)
    ran = switchboard('check')
    assert ran.status == Exit.CONFIG
    assert 'switchboard init' in ran.err
    for name in ('etc/switchboard.cfg', 'switchboard.cfg'):
        (here / name).write_text('[switchboard]\nspool = found\n')
        assert succeed('check').out.startswith(f'{here}/{name}: ')
    monkeypatch.setenv('SWITCHBOARD_CONFIG', str(config))
    assert succeed('check').out.startswith(f'{config}: ')
    monkeypatch.setenv('SWITCHBOARD_CONFIG', str(tmp_path / 'missing.cfg'))
    assert succeed('check', '-C', config).out.startswith(f'{config}: ')
    assert switchboard('check').status == Exit.CONFIG


def test_a_configuration_that_hides_the_installed_one_is_told(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = config.with_name('installed.cfg')
    installed.write_text(config.read_text())
    monkeypatch.setattr('switchboard.cli.context.SEARCHED', ('switchboard.cfg', str(installed)))
    monkeypatch.chdir(config.parent)
    assert f'using ./switchboard.cfg, not {installed}' in switchboard('queues').err


@pytest.mark.skipif(os.geteuid() != 0, reason='root becomes another user')
def test_a_working_directory_that_the_user_may_not_read_hides_no_installed_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    installed, closed = '/etc/passwd', str(tmp_path / 'closed.cfg')
    monkeypatch.setattr('switchboard.cli.context.SEARCHED', ('switchboard.cfg', installed))
    assert in_child(lambda: str(Installation().config_path), NOBODY) == installed
    monkeypatch.setattr('switchboard.cli.context.SEARCHED', ('switchboard.cfg', closed))
    with pytest.raises(AssertionError, match='Permission denied'):
        in_child(lambda: str(Installation().config_path), NOBODY)


@pytest.mark.skipif(os.geteuid() != 0, reason='needs a second user')
@pytest.mark.parametrize(('option', 'status'), [('-C', Exit.CONFIG), ('-s', Exit.NO_PERMISSION)])
def test_what_this_user_may_not_read_is_no_wrong_use(option: str, status: Exit) -> None:
    with tempfile.TemporaryDirectory(
        dir='/tmp'
    ) as name:  # pytest's own directories are closed to other users
        os.chmod(name, 0o755)
        closed = Path(name, 'closed')
        if option == '-C':
            closed.write_text('[switchboard]\nspool = spool\n')
            closed.chmod(0o600)
        else:
            closed.mkdir(0o700)
        ran = in_child(lambda: switchboard(option, closed, 'queues'), NOBODY)
    assert (ran.status, 'Permission denied' in ran.err) == (status, True)


def test_configuration_or_spool_are_named_and_not_both(config: Path, tmp_path: Path) -> None:
    assert switchboard('-C', config, 'queues', '-s', tmp_path).status == Exit.USAGE
    assert switchboard('-s', tmp_path, 'check').status == Exit.USAGE


def test_one_can_still_look_when_the_configuration_is_broken(config: Path) -> None:
    succeed('-C', config, 'init')
    config.write_text(CONFIG + 'nonsense\n')
    ran = succeed('-C', config, 'queues')
    assert f'warning: {config} has 1 mistake;' in ran.err
    assert [line.split()[0] for line in ran.lines[1:]] == ['in', 'out']
    assert switchboard('-C', config, 'status').status == Exit.UNAVAILABLE
    assert switchboard('-C', config, 'enqueue', 'in', input=b'x').status == Exit.CONFIG
    config.write_text('[switchboard]\n')
    assert switchboard('-C', config, 'queues').status == Exit.CONFIG


@pytest.mark.parametrize('name', VERBS)
def test_a_verb_does_what_the_overview_says(name: str) -> None:
    assert isinstance(group, Verbs)
    command = group.get_command(click.Context(group), name)
    assert command is not None
    assert command.name == name
    assert command.help
    ran = succeed(name, '--help')
    assert 'Usage: switchboard' in ran.out
    assert {'-C', '-s'} <= set(ran.out.replace(',', ' ').split()) or name in ('version', 'sample')


def test_the_overview_names_every_verb_of_every_family() -> None:
    out = succeed('--help').out
    for family, verbs in VERB_GROUPS.items():
        assert f'{family}:' in out
        for name, _, summary in verbs:
            assert f'{name} ' in out
            assert summary in out


def options_of(command: click.Command) -> set[str]:
    """:return: the options of a verb that are not everybody's."""
    commands = [command, *(command.commands.values() if isinstance(command, click.Group) else ())]
    found = {
        word
        for one in commands
        for param in one.params
        if isinstance(param, click.Option) and not param.hidden
        for word in param.opts
    }
    return found - {'-C', '--config', '-s', '--spool', '--json'}


@pytest.mark.parametrize('name', VERBS)
def test_the_manual_names_every_verb_with_every_option(name: str) -> None:
    page = (Path(__file__).parents[3] / 'docs' / 'reference' / 'cli.md').read_text()
    sections = [
        section for section in page.split('\n### ') if re.search(rf'`{name}\b', section.splitlines()[0])
    ]
    assert len(sections) == 1
    command = group.get_command(click.Context(group), name)
    assert command is not None
    shared = page.split('\n## Run')[0]
    text = sections[0] + (shared if 'selections' in sections[0] else '')
    assert {option for option in options_of(command) if f'`{option}' not in text} == set()


def test_the_manual_names_each_group_of_shape() -> None:
    command = group.get_command(click.Context(group), 'shape')
    assert command is not None
    helped = next(
        param.help for param in command.params if isinstance(param, click.Option) and param.name == 'by'
    )
    assert helped
    words = set(re.findall(r'\w+', helped.partition('each ')[2].partition(', or for each')[0])) - {'or'}
    page = (Path(__file__).parents[3] / 'docs' / 'reference' / 'cli.md').read_text()
    line = next(line for line in page.splitlines() if line.startswith('- `--by WHAT`'))
    assert set(re.findall(r'`(\w+)`', line)) == words


# These hand all that is said on to a program of its own, or are one.
WITHOUT_JSON = {'run', 'drop', 'master', 'runner', 'sample', 'metrics', 'web'}


@pytest.mark.parametrize('name', sorted(VERBS.keys() - WITHOUT_JSON))
def test_every_verb_writes_json(name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    commands = [command, *(command.commands.values() if isinstance(command, click.Group) else ())]
    for one in commands:
        assert any('--json' in param.opts for param in one.params), one.name


def test_an_error_is_an_object_with_json(tmp_path: Path) -> None:
    succeed('-s', tmp_path, 'init')
    for words, status, kind in (
        (['show', 'nosuch'], Exit.NO_INPUT, 'UnknownEntryError'),
        (['retry', 'nosuch'], Exit.NO_INPUT, 'UnknownEntryError'),
        (['status', '--wrong'], Exit.USAGE, 'NoSuchOption'),
        (['pause', 'nosuch'], Exit.NO_INPUT, 'UnknownQueueError'),
        (['reload'], Exit.UNAVAILABLE, 'NotRunningError'),
    ):
        ran = switchboard('-s', tmp_path, *words, '--json')
        error = json.loads(ran.err.splitlines()[0])
        assert (ran.status, error['exit'], error['class']) == (status, status, kind), words
        assert error.keys() == {'error', 'exit', 'class'}


def members(title: str) -> set[str]:
    """:return: the members that the manual names in the table below this title."""
    page = (Path(__file__).parents[3] / 'docs' / 'reference' / 'cli.md').read_text()
    table = page.split(f'**{title}**')[1].split('\n\n')[1]
    rows = [line.split('|')[1] for line in table.splitlines()[2:]]
    return {word.strip('` ') for row in rows for word in row.split(',')}


def test_objects_have_the_members_that_the_manual_names(tmp_path: Path) -> None:
    spool = Spool(tmp_path, durability='lazy')
    filebase = fail(spool, 'in', 'x')
    entry = members('An entry')
    for words in (['ls'], ['show', filebase]):
        found = succeed('-s', tmp_path, *words, '--json').objects[0]
        more = {'metadata', 'history', 'body', 'queue_flags'} if words[0] == 'show' else set()
        assert found.keys() == entry | more
    queues = succeed('-s', tmp_path, 'queues', '--json').objects
    assert set().union(*queues) == members('A queue')
    (tmp_path / '.run' / 'master').mkdir(parents=True)
    scoreboard = Scoreboard.create(tmp_path / '.run' / 'master' / 'scoreboard', 4)
    scoreboard.write_supervisor_record(0, SupervisorRecord('in', state=ProcessState.RUNNING))
    master, runner, *_ = switchboard('-s', tmp_path, 'status', '--json').objects
    assert (master.keys(), runner.keys()) == (members('The master'), members("A runner's slice"))
    for words in (['retry', filebase], ['edit', 'in/', '--set', 'a=b']):
        words[1] = spool['in'].files[0] if words[0] == 'edit' else words[1]
        (act,) = succeed('-s', tmp_path, *words, '--json').objects
        assert act.keys() == members('An act on an entry')


ETC = Path(__file__).resolve().parents[3] / 'etc'


def test_all_files_of_etc_are_listed() -> None:
    files = {str(path.relative_to(ETC)) for path in ETC.rglob('*') if path.is_file()}
    assert set(succeed('sample').lines) == files
    assert {'switchboard.cfg', 'systemd/switchboard.service', 'postfix/main.cf'} <= files


def test_a_sample_is_written_as_it_is() -> None:
    assert succeed('sample', 'switchboard.cfg').out == (ETC / 'switchboard.cfg').read_text()


def test_a_name_that_is_none_gets_a_hint() -> None:
    ran = switchboard('sample', 'switchbord.cfg')
    assert ran.status == 2
    assert 'switchboard.cfg' in ran.err
