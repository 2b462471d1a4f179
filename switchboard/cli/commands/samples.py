"""``switchboard sample``: the commented samples that lie in ``etc/`` of a checkout, wherever this is installed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

import click

from switchboard.cli.output import tell, write_bytes


def samples() -> dict[str, Traversable]:
    """:return: all samples by name: ``switchboard.cfg``, ``systemd/switchboard.service``, ..."""
    return dict(_below(files('switchboard') / 'samples', ''))


def _below(directory: Traversable, before: str) -> Iterator[tuple[str, Traversable]]:
    for each in sorted(directory.iterdir(), key=lambda each: each.name):
        if each.name == '__pycache__':
            continue  # an installation compiles the samples that are Python
        if each.is_dir():
            yield from _below(each, f'{before}{each.name}/')
        else:
            yield before + each.name, each


def read_sample(name: str) -> bytes:
    """:return: the content of a sample.

    :raises click.UsageError: there is none of that name.
    """
    known = samples()
    if name not in known:
        from switchboard.config.inifile import did_you_mean

        raise click.UsageError(
            f'there is no sample {name!r}{did_you_mean(name, known)}; there are {", ".join(known)}'
        )
    return known[name].read_bytes()


@click.command()
@click.argument('name', required=False)
def sample(name: str | None) -> None:
    """Write a sample of a configuration file to standard output, or list the samples.

    \b
    switchboard sample                                the names of all
    switchboard sample systemd/switchboard.service    one of them
    """
    if name is None:
        for each in samples():
            tell(each)
        return
    write_bytes(read_sample(name))
