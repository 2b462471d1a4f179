"""Whatever is broken around ``bin/drop``, the mail server is told to try again."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.drop.dropping import BODY, DROP, NOBODY, RAW, ROOT, Door, refused


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout of one's own, to be broken."""
    root = tmp_path / 'checkout'
    shutil.copytree(ROOT / 'switchboard', root / 'switchboard', ignore=shutil.ignore_patterns('__pycache__'))
    (root / 'bin').mkdir()
    for name in ('drop', 'switchboard-drop'):
        shutil.copy2(DROP.with_name(name), root / 'bin' / name)
    return root


def test_without_any_python_it_defers(door: Door, tmp_path: Path, copy: Path) -> None:
    broken = copy / '.venv' / 'bin'
    broken.mkdir(parents=True)
    for name in ('python', 'python3', *(f'python3.{minor}' for minor in range(11, 15))):
        (broken / name).write_text('#!/nonexistent/interpreter\n')
        (broken / name).chmod(0o755)
    # Without the two that are tried by their whole path; the machine running this may well have them.
    script = copy / 'bin' / 'switchboard-drop'
    script.write_text(script.read_text().replace('/usr/local/bin/python3 /usr/bin/python3', ''))
    program = copy / 'bin' / 'drop'
    lost = Door(tmp_path / 'lost', program)
    assert refused(lost.drop(env={'PATH': str(broken)}), 'ended with status')
    assert refused(
        lost.drop(env={'PATH': '/nonexistent', 'SWITCHBOARD_VENV': '/nonexistent'}), 'found no Python'
    )
    assert lost.entries() == []


@pytest.mark.parametrize('status', [0, 1, 2, 9, 120, 126, 127])
def test_an_environment_that_is_broken_gives_way_to_another_python(
    door: Door, tmp_path: Path, status: int
) -> None:
    fake = tmp_path / 'venv' / 'bin' / 'python'
    fake.parent.mkdir(parents=True)
    fake.write_text(f'#!/bin/sh\necho noise\necho noise >&2\nexit {status}\n')
    fake.chmod(0o755)
    path = f'{Path(sys.executable).resolve().parent}:/usr/bin:/bin'
    result = door.drop(env={'SWITCHBOARD_VENV': str(tmp_path / 'venv'), 'PATH': path})
    if status == 0:
        return  # nobody can see through that
    if status in (1, 9, 126, 127):
        assert (result.returncode, result.stdout, result.stderr) == (0, b'', b'')
        assert door.stored() == BODY
    else:
        assert refused(result, f'status {status}')
        assert door.entries() == []


@pytest.mark.parametrize(
    'module',
    [
        'drop/program',
        'store/published_options',
        'store/disk',
        'message/naming',
        'message/entry_header',
        'drop_errors',
        'store/publishing',
        'store/pool',
    ],
)
@pytest.mark.parametrize('damage', ['missing', 'syntax', 'raises', 'unreadable'])
def test_a_module_that_is_broken_defers(tmp_path: Path, copy: Path, module: str, damage: str) -> None:
    path = copy / 'switchboard' / f'{module}.py'
    if damage == 'missing':
        path.unlink()
    elif damage == 'unreadable':
        path.unlink()
        path.mkdir()
    else:
        path.write_text('def f(:\n' if damage == 'syntax' else 'raise RuntimeError("one\\ntwo")\n')
    broken = Door(tmp_path, copy / 'bin' / 'drop')
    broken.environment['PATH'] = f'{Path(sys.executable).resolve().parent}:/usr/bin:/bin'
    assert refused(broken.drop(), 'cannot start')
    assert broken.entries() == []


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that other users can reach: those of pytest they cannot."""
    with tempfile.TemporaryDirectory(prefix='switchboard-test-') as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_a_spool_that_may_not_be_written_defers(public: Path) -> None:
    door = Door(public)
    (door.spool / 'in').chmod(0o555)
    door.spool.chmod(0o555)
    if os.geteuid() == 0:
        other: dict[str, Any] = {'user': NOBODY, 'group': NOBODY}
        door.environment['SWITCHBOARD_VENV'] = '/nonexistent'  # it may belong to root; any Python will do
        if not os.stat(ROOT).st_mode & 0o005 or shutil.which('python3', path='/usr/bin:/bin') is None:
            pytest.skip('another user can run nothing here')
    else:
        other = {}
    assert refused(door.drop(**other), 'Permission denied')
    assert door.entries() == []


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can be somebody else')
def test_another_user_may_drop_if_its_group_may_write(public: Path) -> None:
    door = Door(public)
    for directory in (door.spool, door.spool / 'in'):
        os.chown(directory, 0, NOBODY)
        directory.chmod(0o2770)
    door.environment['SWITCHBOARD_VENV'] = '/nonexistent'
    result = door.drop(user=NOBODY, group=NOBODY)
    if b'Python' in result.stderr or b'ended with' in result.stderr:
        pytest.skip('another user has no Python here')
    assert result.returncode == 0, result
    [path] = door.entries()
    assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) == (NOBODY, NOBODY, 0o660)


@pytest.mark.parametrize('limit', [12, 14, 16, 20, 64])
def test_few_open_files_are_enough_or_it_defers(door: Door, limit: int) -> None:
    result = door.drop(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
    assert result.returncode in (0, 75), result
    assert len(door.entries()) == (result.returncode == 0)


@pytest.mark.parametrize('limit', [0, 100, 1_000_000])
def test_a_limit_on_the_size_of_files_defers(door: Door, limit: int) -> None:
    result = door.drop(
        RAW + b'x' * 2_000_000,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert refused(result)
    assert door.entries() == []


def test_too_little_memory_defers(door: Door) -> None:
    limit = 48 * 1024 * 1024
    with door.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))) as process:
        _, err = process.communicate(b'x' * 40_000_000)
    assert process.returncode == 75
    assert err.startswith(b'4.3.0 ')
    assert door.entries() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / 'disk'
    directory.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip('file systems can be mounted by root only')
    yield directory
    subprocess.run(['umount', '--lazy', str(directory)], check=True)


def test_a_full_disk_defers_and_when_there_is_room_again_it_stores(small_disk: Path) -> None:
    door = Door(small_disk)
    (small_disk / 'ballast').write_bytes(b'x' * 150_000)
    assert refused(door.drop(b'x' * 200_000), 'No space left')
    assert door.entries() == []
    (small_disk / 'ballast').unlink()
    assert door.drop(b'x' * 200_000).returncode == 0
    assert door.stored() == b'x' * 200_000
