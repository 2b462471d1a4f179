"""A container's base image made of this machine's own packages, because no registry is asked: Debian's Python, pip, and what is named."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from pathlib import Path
from typing import IO

# What every image has; a package brings what it depends on.
PACKAGES = (
    'base-files',
    'bash',
    'coreutils',
    'dash',
    'findutils',
    'grep',
    'hostname',
    'libc-bin',
    'passwd',
    'python3-pip',
    'sed',
    'tzdata',
)
# Made by the packages' scripts, and so in none of them.
MADE = ('/etc/ld.so.cache', '/etc/nsswitch.conf', '/etc/alternatives', '/etc/pam.d', '/etc/security')
LINKS = {
    'bin': 'usr/bin',
    'sbin': 'usr/sbin',
    'lib': 'usr/lib',
    'lib64': 'usr/lib64',
    'usr/bin/python': 'python3',
}
DIRECTORIES = ('tmp', 'proc', 'sys', 'dev', 'run', 'usr/local', 'usr/local/bin', 'usr/local/share')
# Documents are read by people.
LEFT_OUT = re.compile(r'/usr/share/(doc|man|info|locale|bash-completion|lintian|bug)/')
USERS = 'root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n'
GROUPS = 'root:x:0:\nadm:x:4:\ntty:x:5:\nwww-data:x:33:\nshadow:x:42:\nutmp:x:43:\nnogroup:x:65534:\n'
FILES = {
    'etc/passwd': USERS,
    'etc/group': GROUPS,
    'etc/shadow': 'root:*:19000:0:99999:7:::\n',
    'etc/gshadow': '',
    'etc/hostname': 'trial\n',
    # Where the wheels lie is said on the command line.
    'etc/pip.conf': '[global]\nno-index = true\nbreak-system-packages = true\nroot-user-action = ignore\n',
}


def installed_packages() -> dict[str, tuple[str, list[list[str]]]]:
    """:return: by name, and by what it provides: the package, and of each dependency the alternatives."""
    form = '${db:Status-Abbrev}\t${binary:Package}\t${Provides}\t${Pre-Depends}, ${Depends}\n'
    listed = subprocess.run(
        ['dpkg-query', '-W', '-f', form], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, tuple[str, list[list[str]]]] = {}
    for line in listed.splitlines():
        status, package, provides, depends = line.split('\t')
        if not status.startswith('ii'):
            continue
        entry = (
            package,
            [[_name(each) for each in one.split('|')] for one in depends.split(',') if one.strip()],
        )
        found[package.partition(':')[0]] = entry
        for name in provides.split(','):
            if name.strip():
                found.setdefault(_name(name), entry)
    return found


def _name(dependency: str) -> str:
    return re.split(r'[\s(:]', dependency.strip(), maxsplit=1)[0]


def closure(names: tuple[str, ...]) -> list[str]:
    """:return: these packages and all that they depend on.

    :raises KeyError: one of `names` is not installed.
    """
    installed = installed_packages()
    ahead, taken = [installed[name] for name in names], set()
    while ahead:
        package, depends = ahead.pop()
        if package not in taken:
            taken.add(package)
            ahead += [
                installed[first]
                for one in depends
                if (first := next((x for x in one if x in installed), None))
            ]
    return sorted(taken)


def write(archive: IO[bytes], names: tuple[str, ...] = ()) -> None:
    """Write the image's files.

    :param names: packages besides `PACKAGES`.
    """
    listed = subprocess.run(
        ['dpkg', '-L', *closure((*PACKAGES, *names))], capture_output=True, text=True, check=True
    )
    paths = {
        path for path in listed.stdout.splitlines() if path.startswith('/') and not LEFT_OUT.search(path)
    }
    for made in MADE:
        paths |= {made, *(str(each) for each in Path(made).rglob('*'))}
    with tarfile.open(fileobj=archive, mode='w|') as out:
        for path, target in LINKS.items():
            link = tarfile.TarInfo(path)
            link.type, link.linkname = tarfile.SYMTYPE, target
            out.addfile(link)
        written = {f'/{path}' for path in (*LINKS, *FILES)}
        for path in sorted(paths):
            # Below /bin and the like, which are links.
            real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
            if real not in written and os.path.lexists(real) and not real.endswith('EXTERNALLY-MANAGED'):
                written.add(real)
                out.add(real, recursive=False)
        for path, text in FILES.items():
            _add(out, path, text)
        for path in DIRECTORIES:
            if f'/{path}' not in written:
                directory = tarfile.TarInfo(path)
                directory.type, directory.mode = tarfile.DIRTYPE, 0o1777 if path == 'tmp' else 0o755
                out.addfile(directory)


def _add(out: tarfile.TarFile, path: str, text: str) -> None:
    import io

    content = text.encode()
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), 0o644
    out.addfile(entry, io.BytesIO(content))
