"""Keys of a configuration section that a runner's own class declares, reads and checks.

The configuration does not know them: a new runner touches no core file.  They are checked in the runner's process,
which ends with EX_CONFIG when one is wrong, so that the master does not start it again and ``status`` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import TextIOWrapper
from typing import Any, NamedTuple

from switchboard.errors import ConfigError
from switchboard.options import RunnerOptions
from switchboard.regular_file import open_regular_file
from switchboard.suggestions import did_you_mean

# A password is shorter; a longer text is another file.
MAX_SECRET_CHARACTERS = 10_000


class Setting(NamedTuple):
    """A key that a runner's class declares for its section: how it is read, and the value without it.

    :param old_name: an earlier name of the key, which is read as before.
    """

    parse: Callable[[str], Any] = str
    default: Any = None
    required: bool = False
    old_name: str = ''


def read_settings(declared: Mapping[str, Setting], options: RunnerOptions, class_name: str) -> dict[str, Any]:
    """Read a section's own keys.

    :return: a value for every declared key.
    :raises ConfigError: a key is unknown, missing or has a bad value.
    """
    section = f'runner.{options.name}'
    given = dict(options.settings)
    for key, setting in declared.items():
        if setting.old_name in given:
            if key in given:
                raise ConfigError(
                    f'is the old name of {key!r}, which is there, too', section=section, key=setting.old_name
                )
            given[key] = given.pop(setting.old_name)
    for key in given:
        if key not in declared:
            hint = did_you_mean(key, declared)
            raise ConfigError(f'{class_name} has no such key{hint}', section=section, key=key)
    values = {}
    for key, setting in declared.items():
        if key not in given:
            if setting.required:
                raise ConfigError(f'{class_name} needs this key', section=section, key=key)
            values[key] = setting.default
            continue
        try:
            values[key] = setting.parse(given[key])
        except ValueError as error:
            refusal = ConfigError(str(error), key=key)
            name_place(refusal, declared, options)
            raise refusal from error
    return values


def name_place(error: ConfigError, declared: Mapping[str, Setting], options: RunnerOptions) -> None:
    """Have an error name the section that it is about, and the key as it stands there: by its old name, perhaps."""
    section = f'runner.{options.name}'
    error.section = error.section or section
    setting = declared.get(error.key or '')
    if error.section == section and setting is not None and setting.old_name in options.settings:
        error.key = setting.old_name


def read_secret(path: str | None, section: str | None = None) -> str:
    """:return: the first line of the file that ``password_file`` names.

    :raises ConfigError: it cannot be read, or is not text in UTF-8.
    """
    if not path:
        raise ConfigError('names the file with the password; give it', section=section, key='password_file')
    try:
        with TextIOWrapper(open_regular_file(path), encoding='utf-8') as file:
            return file.readline(MAX_SECRET_CHARACTERS).rstrip('\r\n')
    except (OSError, ValueError) as error:
        raise ConfigError(f'cannot be read: {error}', section=section, key='password_file') from error
