"""How the pages of this directory become a site: `bin/docs`.

The pages are the same that the repository shows.  So the index is written once, in README.md: each of its sections becomes a part of the
site's contents, and nothing here lists a page.  An interface tells a contract once, and its class says "See `ISpool`."; the reference
shows the contract there.
"""

from __future__ import annotations

import inspect
import re
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

from zope.interface.interface import InterfaceClass

import switchboard
from switchboard import interfaces

DOCS = Path(__file__).resolve().parent

project = 'Switchboard'
author = 'The Switchboard developers'
version = release = switchboard.__version__
html_title = f'Switchboard {version}'
html_theme = 'furo'
html_show_copyright = False

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx_click']
root_doc = 'README'
exclude_patterns = ['changes']

myst_heading_anchors = 4
# JavaScript that no release of Pygments reads, and a table of numbers.
suppress_warnings = ['misc.highlighting_failure']

# One back-quoted word in a docstring is a name, whether or not it has a place here.
default_role = 'literal'
add_module_names = False
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'

PART = re.compile(r'^## (?P<caption>.+)\n(?P<text>(?:(?!^## ).*\n?)*)', re.MULTILINE)
PAGE = re.compile(r'^- \[[^\]]+\]\((?P<place>[^):]+)\.md\)$', re.MULTILINE)
SEE = re.compile(r' ?See `(?P<interface>I[A-Z]\w*)`\.')
# What a page calls outside of this directory is a file of the checkout.
OUTSIDE = re.compile(r'\[(?P<text>[^\]]*)\]\((?P<place>(?:\.\./)+[^)#:]+)(?:#[^)]*)?\)')
# A place that is linked to and has no heading of its own; GitHub wants HTML there.
PLACE = re.compile(r'^<a id="(?P<name>\w+)"></a>$', re.MULTILINE)


def contents(text: str) -> str:
    """:return: the index, with the contents of the site behind it."""
    parts = []
    for part in PART.finditer(text):
        pages = PAGE.findall(part['text'])
        if pages:
            parts.append(
                '\n'.join(
                    ['', '```{toctree}', ':hidden:', f':caption: {part["caption"]}', '', *pages, '```', '']
                )
            )
    return text + ''.join(parts)


def within(page: Path, text: str) -> str:
    """:return: the page as the site has it: files that are not on the site are named, and not linked to."""

    def named(match: re.Match[str]) -> str:
        target = (page.parent / match['place']).resolve()
        return match[0] if target.is_relative_to(DOCS) else match['text']

    return PLACE.sub(r'(\g<name>)=', OUTSIDE.sub(named, text))


def read_page(app: Any, name: str, source: list[str]) -> None:
    text = within(DOCS / f'{name}.md', source[0])
    source[0] = contents(text) if name == root_doc else text


def contract_of(interface: str, name: str) -> list[str]:
    """:return: what an interface says of itself, or of the method of that name."""
    found = getattr(interfaces, interface)
    assert isinstance(found, InterfaceClass)
    described = found.get(name.rpartition('.')[2])
    return inspect.cleandoc((described if described is not None else found).getDoc()).splitlines()


def write_contract(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    for at, line in enumerate(lines):
        if (match := SEE.search(line)) is not None:
            own, contract = SEE.sub('', line), contract_of(match['interface'], name)
            lines[at : at + 1] = contract if own in ('', contract[0]) else [own, '', *contract]
            return


def escape_stars(app: Any, context: Any, lines: list[str]) -> None:
    # In a help text a star is a star: what a user types.
    lines[:] = [re.sub(r'(?<!\\)\*', r'\\*', line) for line in lines]


def write_front_page(app: Any, exception: Exception | None) -> None:
    if exception is None and app.builder.format == 'html':
        shutil.copy(Path(app.outdir) / 'README.html', Path(app.outdir) / 'index.html')


def setup(app: Any) -> dict[str, bool]:
    # Pages that show all that a module has ask for it by name.
    import_module('switchboard.testing')
    app.connect('source-read', read_page)
    app.connect('autodoc-process-docstring', write_contract)
    for part in ('description', 'options', 'arguments'):
        app.connect(f'sphinx-click-process-{part}', escape_stars)
    app.connect('build-finished', write_front_page)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
