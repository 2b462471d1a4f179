"""``switchboard check``: every mistake of the configuration at once, each with its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from switchboard.cli.exits import Exit
from switchboard.cli.installation import Installation, json_option, verb
from switchboard.cli.tables import is_terminal, write_json
from switchboard.cli.wording import number, visible
from switchboard.config.remote_queues import load
from switchboard.errors import ConfigError, ConfigErrors

if TYPE_CHECKING:
    from switchboard.config.config import Config

Problem = tuple[str, ConfigError]


def import_errors(config: Config) -> Iterator[ConfigError]:
    """Import every runner's class and read its section's own keys, as the runner would."""
    from switchboard.master.loading import extend_path, find_class, python_path
    from switchboard.runner.settings import read_settings

    extend_path(python_path(config.path, config.master.python_path))
    for options in config.runners.values():
        try:
            found = find_class(options)
            setting = read_settings(found.settings, options, found.__name__)
            found.check(setting, options, config.runners)
        except ConfigError as error:
            error.file = error.file or str(config.path)
            yield error
        except SystemExit as error:
            reason = f'importing {options.class_path} ends the program with {error}'
            yield ConfigError(reason, file=str(config.path), section=f'runner.{options.name}', key='class')


def url_errors(config: Config) -> Iterator[ConfigError]:
    """Read the URLs of queues that are on brokers, as who opens them would; nobody is called."""
    urls = {name: options for name in config.queue_names() if (options := config.queue_options(name)).url}
    for name, options in urls.items():
        rule = config.queues.deciding(name, 'url')
        try:
            load().check(options)
        except ConfigError as error:
            error.file = error.file or str(config.path)
            error.section = error.section or (rule.section.name if rule is not None else None)
            yield error


def problems(installation: Installation, *, imports: bool) -> tuple[Config | None, list[Problem]]:
    """:return: the configuration, if it can be used, and what is wrong and what is strange."""
    try:
        config = installation.config
    except ConfigErrors as error:
        return None, [('error', each) for each in error.errors]
    found: list[Problem] = [('warning', each) for each in config.warnings]
    found += [('error', each) for each in url_errors(config)]
    if imports:
        found += [('error', each) for each in import_errors(config)]
    return config, found


@verb()
@click.option(
    '--imports', is_flag=True, help="Also import every runner's class, and read the keys that it declares."
)
@click.option('--write', is_flag=True, help='If there is no error, write the copy that `bin/drop` reads.')
@click.option('--strict', is_flag=True, help='Warnings count as errors.')
@json_option
@click.pass_context
def check(
    context: click.Context,
    installation: Installation,
    imports: bool,
    write: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Show every mistake of the configuration: file, line, section, key.

    Exit status 78 if there is an error; warnings are for what works and is hardly meant.
    """
    config, found = problems(installation, imports=imports)
    for level, each in found:
        if as_json:
            place = {'file': each.file, 'line': each.line, 'section': each.section, 'key': each.key}
            write_json({'level': level, **place, 'reason': each.reason})
            continue
        colour = {'error': 'red', 'warning': 'yellow'}[level]
        word = click.style(level, fg=colour) if is_terminal() else level
        for line in str(each).splitlines():
            click.echo(f'{word}: {visible(line)}')
    errors = sum(level == 'error' for level, _ in found)
    warnings = len(found) - errors
    if write and config is not None and not errors:
        from switchboard.spool.current import publish_queue_options

        publish_queue_options(config)
    if not as_json:
        _sum_up(config, errors, warnings)
    context.exit(Exit.CONFIG if errors or (strict and warnings) else Exit.OK)


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
        click.echo(f'{config.path}: {", ".join(counts) or "no mistakes"} ({", ".join(parts)})')
    else:
        click.echo(', '.join(counts))
