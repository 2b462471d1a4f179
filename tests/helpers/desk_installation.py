"""The installation that the tests of the desk look at, in this process or through a browser."""

from __future__ import annotations

from pathlib import Path

CONFIG = """[switchboard]
spool = spool
durability = lazy
[runner.out]
class = null
queue = out
[queue.in]
external = yes
[queue.orders]
external = yes
"""


def install(directory: Path, sections: str = '') -> Path:
    """:return: the configuration file, written with these sections as well if it is not there."""
    config = directory / 'switchboard.cfg'
    if not config.exists():
        config.write_text(CONFIG + sections)
        (directory / 'exchange.cfg').write_text('')
    return config
