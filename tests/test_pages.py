"""The pages agree with the code and with each other: links lead somewhere, and lists that the code has are whole.

The site's own check (`bin/docs`) finds the same dead links, and takes half a minute and Sphinx to find them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')])
FENCED = re.compile(r'^ *```.*?^ *```[^`\n]*$', re.DOTALL | re.MULTILINE)
LINK = re.compile(r'\]\(\s*<?(?!https?:|mailto:)(?P<place>[^)#>\s]*)(?:#(?P<anchor>[^)>\s]+))?[^)]*\)')
HEADING = re.compile(r'^#{1,6} +(.+?) *$', re.MULTILINE)
PLACE = re.compile(r'<a id="([^"]+)"></a>')


def anchors(page: str) -> set[str]:
    """:return: what a link may end in behind ``#``: headings, as GitHub and the site name them, and marked places."""
    found: set[str] = set(PLACE.findall(page))
    for heading in HEADING.findall(FENCED.sub('', page)):
        text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading)
        slug = re.sub(r'[^\w\- ]', '', text.lower()).replace(' ', '-')
        found.add(slug if slug not in found else f'{slug}-1')
    return found


def dead_links(path: Path, root: Path = ROOT) -> Iterator[str]:
    for match in LINK.finditer(FENCED.sub('', path.read_text())):
        target = path if not match['place'] else (path.parent / match['place'])
        if not target.exists() or not target.resolve().is_relative_to(root):
            yield f'{match["place"]}: no such file'
        elif match['anchor'] and match['anchor'] not in anchors(target.read_text()):
            yield f'{match["place"]}#{match["anchor"]}: no such heading'


@pytest.mark.parametrize('path', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_something_that_is_there(path: Path) -> None:
    assert list(dead_links(path)) == []


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    (tmp_path / 'other.md').write_text('# Other things\n')
    page = tmp_path / 'page.md'
    page.write_text('[a](other.md) [b](other.md#other-things) [c](gone.md) [d](other.md#gone) [e](#gone)\n')
    assert list(dead_links(page, tmp_path)) == [
        'gone.md: no such file',
        'other.md#gone: no such heading',
        '#gone: no such heading',
    ]
