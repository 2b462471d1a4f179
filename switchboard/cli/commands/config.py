"""``switchboard sample``, ``init``, ``check``, ``route``, ``graph`` and ``version``: the configuration and its checks."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from switchboard import __version__
from switchboard.cli.context import Installation, json_option, json_report_option, make_json_option, verb
from switchboard.cli.exits import Exit
from switchboard.cli.options import RenamedOption, pairs_callback
from switchboard.cli.output import (
    is_json,
    print_note,
    report,
    with_installation,
    write_bytes,
    write_json,
    write_line,
)
from switchboard.errors import ConfigError, ConfigErrors
from switchboard.operating.health import Problem, spool_problems
from switchboard.operating.text import escape_terminal, number, quoted
from switchboard.suggestions import did_you_mean

if TYPE_CHECKING:
    from switchboard.config.config import Config

# Files that wait for the first messages: as many as a process keeps open.  Of these no message has to make its own.
FIRST_SPARES = 64

SAMPLES = ('switchboard.cfg', 'exchange.cfg')

# Graphviz takes minutes for thousands of nodes.
DRAWING_S = 60


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
        raise click.UsageError(
            f'there is no sample {name!r}{did_you_mean(name, known)}; there are {", ".join(known)}'
        )
    return known[name].read_bytes()


@click.command()
@click.argument(
    'name',
    required=False,
    shell_complete=lambda _context, _param, begun: [each for each in samples() if each.startswith(begun)],
)
def sample(name: str | None) -> None:
    """Write a sample of a configuration file to standard output, or list the samples.

    \b
    switchboard sample                                the names of all
    switchboard sample systemd/switchboard.service    one of them
    """
    if name is None:
        for each in samples():
            write_line(each)
        return
    write_bytes(read_sample(name))


def copy_samples(directory: Path) -> list[Path]:
    """Copy the sample configuration into a directory; a file that is there already stays as it is.

    The two files belong together: beside a configuration of somebody else's, the sample's exchanges would be mistakes.

    :return: the files that were made.
    """
    if (directory / SAMPLES[0]).exists():
        return []
    directory.mkdir(parents=True, exist_ok=True)
    made = []
    for name in SAMPLES:
        target = directory / name
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            continue
        with os.fdopen(descriptor, 'wb') as stream:
            stream.write(read_sample(name))
        made.append(target)
    return made


@verb()
@click.argument('directory', required=False, type=click.Path(path_type=Path, file_okay=False))
@json_report_option
def init(installation: Installation, directory: Path | None) -> None:
    """Make a configuration or a spool.

    With DIRECTORY, a commented sample configuration is put into DIRECTORY/etc, and its spool is made.  Without one, the
    spool of the configuration in use, or of -s, and its queues, and files that wait for the first messages.  A file that is there
    already is left as it is.

    \b
    switchboard init mail        mail/etc/switchboard.cfg and what it says
    switchboard -s /tmp/x init   a spool without a configuration
    """
    if directory is not None:
        if installation.named_spool is not None or installation.named_config is not None:
            raise click.UsageError('give DIRECTORY, or -C or -s, not both')
        for path in copy_samples(directory / 'etc'):
            report(f'made {path}', act='init', made=str(path))
        installation.made_config = directory / 'etc' / SAMPLES[0]
    from switchboard.spool.active_config import activate
    from switchboard.status.alive import master_alive

    there = installation.directory.is_dir()
    spool = installation.spool(make=True)
    config = spool.config
    queues = config.queue_names() if config is not None else ('bad',)
    # A running master has a configuration in force already, and takes another at a reload.
    if config is not None and not master_alive(spool.directory):
        activate(config)
    missing = [name for name in queues if not os.path.isdir(spool.path(name))]
    for name in missing:
        spool.queue(name)
    if not there:
        spool.pool.fill(FIRST_SPARES)
    if not missing:
        report(f'{spool.directory}: all is there already', act='init', spool=str(spool.directory), queues=[])
        return
    what = 'added to' if there else 'made'
    text = f'{what} {spool.directory} ({number(len(missing), "queue")}: {", ".join(missing)})'
    report(text, act='init', spool=str(spool.directory), queues=list(missing))
    if directory is not None:
        goes_there = '' if directory.samefile('.') else f'cd {quoted(directory)} && '
        print_note(f'next: look into {installation.made_config}, then `{goes_there}switchboard start`')


def import_problems(config: Config) -> Iterator[Problem]:
    """Import every runner's class and read its section's own keys, as the runner would."""
    from switchboard.master.loading import exit_refused, extend_path, find_class, python_path
    from switchboard.runner.settings import Setting, name_place, read_settings

    extend_path(python_path(config.path, config.master.python_path))
    for options in config.runners.values():
        declared: Mapping[str, Setting] = {}
        try:
            with exit_refused(options):
                found = find_class(options)
                declared = found.settings
                values = read_settings(declared, options, found.__name__)
                found.check(values, options, config.runners)
                warnings = [*found.warnings(values, options)]
            for warning in warnings:
                warning.file = warning.file or str(config.path)
                yield 'warning', warning
        except ConfigError as error:
            error.file = error.file or str(config.path)
            name_place(error, declared, options)
            yield 'error', error


def problems(installation: Installation, *, imports: bool) -> tuple[Config | None, list[Problem]]:
    """:return: the configuration, if it can be used, with its errors and its warnings."""
    found: list[Problem]
    try:
        config = installation.config
    except ConfigErrors as error:
        found = [('warning', each) for each in error.warnings]
        return None, found + [('error', each) for each in error.errors]
    found = [('warning', each) for each in config.warnings]
    found += spool_problems(config)
    return config, found + ([*import_problems(config)] if imports else [])


@verb()
@click.option(
    '--imports', is_flag=True, help="Also import every runner's class, and read the keys that it declares."
)
@click.option(
    '--write-drop-config',
    cls=RenamedOption,
    old=('--write',),
    is_flag=True,
    help='If there is no error, write the copy that `switchboard-drop` reads.',
)
@click.option('--strict', is_flag=True, help='Warnings count as errors.')
@json_option
def check(installation: Installation, imports: bool, write_drop_config: bool, strict: bool) -> Exit:
    """Show every mistake of the configuration: file, line, section, key.

    Exit status 78 if there is an error; warnings are for what works and is hardly meant.
    """
    config, found = problems(installation, imports=imports)
    for level, each in found:
        if is_json():
            write_json({'level': level, **each.fields()})
            continue
        colour = {'error': 'red', 'warning': 'yellow'}[level]
        word = click.style(level, fg=colour)
        for line in str(each).splitlines():
            write_line(f'{word}: {with_installation(escape_terminal(line))}')
    errors = sum(level == 'error' for level, _ in found)
    warnings = len(found) - errors
    if write_drop_config and config is not None and not errors:
        from switchboard.spool.active_config import publish_queue_options

        publish_queue_options(config)
    if not is_json():
        _sum_up(config, errors, warnings)
    return Exit.CONFIG if errors or (strict and warnings) else Exit.OK


def _sum_up(config: Config | None, errors: int, warnings: int) -> None:
    counts = [number(errors, 'error')] if errors else []
    counts += [number(warnings, 'warning')] if warnings else []
    if config is not None:
        slices = sum(options.instances for options in config.runners.values())
        parts = (
            number(len(config.queue_names()), 'queue'),
            number(len(config.runners), 'runner') + f' in {number(slices, "slice")}',
            number(len(config.exchanges.exchanges), 'exchange'),
        )
        write_line(f'{config.path}: {", ".join(counts) or "no mistakes"} ({", ".join(parts)})')
    else:
        write_line(', '.join(counts))


@verb()
@click.argument('exchange')
@click.argument('routing_key', metavar='KEY')
@click.option(
    '-H',
    '--header',
    'headers',
    multiple=True,
    metavar='KEY=VALUE',
    callback=pairs_callback,
    help="One of the message's metadata, for headers exchanges; KEY:=JSON for other than text.",
)
@json_option
def route(installation: Installation, exchange: str, routing_key: str, headers: dict[str, Any]) -> Exit:
    """Explain where a message with this KEY would go from EXCHANGE, and why.

    Every binding that is looked at is a line: + it matches, - it does not.  The default exchange is called ''.
    Exit status 67 if nobody takes the message.

    \b
    switchboard route mail lists.dogs.post
    switchboard route reports '' -H format=pdf -H urgent:=true
    """
    steps = installation.exchanges().explain(exchange, routing_key, headers)
    queues = list(dict.fromkeys(queue for step in steps for queue in step.delivered))
    unknown = [queue for queue in queues if not installation.takes(queue)]
    if is_json():
        for step in steps:
            binding = str(step.binding) if step.binding is not None else None
            write_json({**step._asdict(), 'binding': binding})
    else:
        for step in steps:
            line = escape_terminal(str(step))
            write_line(click.style(line, fg='green') if step.matched else line)
        write_line(f'\n{", ".join(queues)}' if queues else '\nnobody takes it')
        for queue in unknown:
            write_line(f'there is no queue {escape_terminal(queue)!r}: publishing it is an error')
    return Exit.OK if queues and not unknown else Exit.NO_ROUTE


@verb()
@click.option(
    '--svg', is_flag=True, help='As a picture, drawn by Graphviz: switchboard graph --svg > graph.svg'
)
@click.option(
    '--dot', is_flag=True, help="In Graphviz' language: switchboard graph --dot | dot -Tsvg > graph.svg"
)
@json_option
def graph(installation: Installation, svg: bool, dot: bool) -> None:
    """Draw which exchange feeds which queue, and which runner takes from it.

    What programs have declared in the spool is in it too.
    """
    exchanges = installation.exchanges()
    if installation.named_spool is None:
        picture = dataclasses.replace(installation.config, exchanges=exchanges).graph()
    else:
        picture = exchanges.graph()
    if is_json():
        for node in picture.nodes:
            write_json(node.fields())
        for edge in picture.edges:
            write_json(edge.fields())
    elif svg:
        write_line(_drawn(picture.to_dot()), nl=False)
    elif dot or picture.nodes:
        write_line(picture.to_dot() if dot else picture.to_text(), nl=False)
    else:
        print_note('no exchanges, and no runners')


def _drawn(dot: str) -> str:
    """Have Graphviz draw a graph."""
    import subprocess

    command = ['dot', '-Tsvg']  # wherever it is installed
    try:
        drawn = subprocess.run(
            command,
            input=dot,
            capture_output=True,
            check=True,
            text=True,
            encoding='utf-8',
            timeout=DRAWING_S,
        )
    except OSError as error:
        raise click.ClickException(
            f'--svg needs Graphviz, and `dot` cannot be started ({error.strerror}): install it, or take --dot to where it is'
        ) from error
    except subprocess.SubprocessError as error:
        raise click.ClickException(f'Graphviz could not draw it: {error}') from error
    return drawn.stdout


@click.command()
@make_json_option('as_json', 'One JSON object, for programs.')
def version() -> None:
    """Show the versions of program and formats.

    A spool may be read by every version that names the same entry format.
    """
    from switchboard.message.entry_header import MAGIC
    from switchboard.store.disk import Disk

    magic = MAGIC.decode('ascii')
    python, is_accelerated = platform.python_version(), Disk.of_system().accelerator is not None
    report(
        f'switchboard {__version__}\nPython {python}\nentry format {magic}\n'
        f'accelerator {"in use" if is_accelerated else "not in use"}',
        switchboard=__version__,
        python=python,
        entry_format=magic,
        accelerator=is_accelerated,
    )
