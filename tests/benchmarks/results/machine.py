"""What the figures were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

PACKAGES = 'mailman kombu celery amqp redis dirq persist-queue litequeue huey gocept.filestore zope.interface inotify-simple'.split()
PROGRAMS = {
    'redis-server': ['redis-server', '--version'],
    'rabbitmq-server': ['dpkg-query', '-W', '-f', '${Version}', 'rabbitmq-server'],
    'cc': ['cc', '--version'],
}


def _first_line(arguments: list[str]) -> str:
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    except OSError:
        return 'not there'
    return done.stdout.partition('\n')[0].strip() if done.returncode == 0 else 'not there'


def _cpu() -> str:
    for line in Path('/proc/cpuinfo').read_text().splitlines():
        if line.startswith('model name'):
            return line.partition(':')[2].strip()
    return platform.processor() or 'unknown'


def _mount(directory: Path) -> str:
    at = directory.resolve()
    mounts = {part.mountpoint: part for part in psutil.disk_partitions(all=True)}
    while str(at) not in mounts and at != at.parent:
        at = at.parent
    part = mounts.get(str(at))
    return f'{_kind(part.fstype, part.device)} ({part.opts})' if part else 'unknown'


def _kind(name: str, device: str) -> str:
    """:return: a file system, and of ext4 whether it has a journal, which decides what renames and deletions cost."""
    if name != 'ext4':
        return name
    try:
        task = Path('/sys/fs/ext4', Path(device).resolve().name, 'journal_task').read_text().strip()
    except OSError:
        return name
    return f'{name}, {"no journal" if task == "<none>" else "with a journal"}'


def file_system(directory: Path) -> str:
    """:return: the file system of a directory, in some words."""
    return _mount(directory).partition(' (')[0]


def _packages() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = 'not there'
    return versions


def describe(directory: Path) -> dict[str, Any]:
    """:return: the machine, as far as it matters to figures measured in `directory`."""
    return {
        'when': datetime.now(UTC).strftime('%Y-%m-%d %H:%M UTC'),
        'processor': f'{_cpu()}, {os.cpu_count()} cores seen',
        'memory': f'{psutil.virtual_memory().total / 2**30:.0f} GiB',
        'kernel': platform.release(),
        'file system': _mount(directory),
        'python': platform.python_version(),
        'load before': round(os.getloadavg()[0], 1),
        'packages': _packages(),
        'programs': {name: _first_line(arguments) for name, arguments in PROGRAMS.items()},
    }
