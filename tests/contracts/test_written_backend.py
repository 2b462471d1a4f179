"""The module that the page about writing a backend shows, run as it stands there."""

from __future__ import annotations

from pathlib import Path

from tests.test_documentation import blocks_of

PAGE = Path(__file__).parents[2] / 'docs' / 'howto' / 'write-a-backend.md'
[MODULE] = [block.text for block in blocks_of(PAGE.read_text()) if 'def backend' in block.text]

exec(compile(MODULE, str(PAGE), 'exec'))  # its tests and its fixture become this module's
