"""The page of the house says what the house is."""

from __future__ import annotations

import re

import pytest

from tests import house_page

# `room/module` in backticks, as the two ways of a message name them.
PLACE = re.compile(r'`([a-z_]+/[a-z_]+)`')


def test_the_page_of_the_house_is_what_its_command_writes() -> None:
    page = house_page.PAGE.read_text()
    assert page == house_page.written(page), f'the page is stale: run `{house_page.COMMAND}` and commit it'


def test_the_page_has_all_its_written_parts() -> None:
    assert {match[2] for match in house_page.PART.finditer(house_page.PAGE.read_text())} == {
        'picture',
        'rooms',
    }


def test_every_place_that_the_page_names_is_there() -> None:
    rooms = {name for row in house_page.storeys() for name in row}
    places = [
        place for place in PLACE.findall(house_page.PAGE.read_text()) if place.partition('/')[0] in rooms
    ]
    assert len(places) > 15
    assert [place for place in places if not house_page.is_module(place)] == []


def test_every_file_that_contributing_names_is_there() -> None:
    text = (house_page.ROOT / 'CONTRIBUTING.md').read_text()
    named = [name for name in re.findall(r'`([a-z_]+/[\w/.]+\.\w+)`', text) if 'NAME' not in name]
    assert len(named) > 10
    places = (house_page.ROOT, house_page.PACKAGE)
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


@pytest.mark.parametrize(
    ('new', 'entry', 'files'),
    [
        ('runner', r"^    (?:null = |'null': ')switchboard\.runners\.null:", 2),
        ('queue option', r"^    (?:dedupe_window_s: |'dedupe_window_s': |.*\bKey\('dedupe_window_s')", 4),
    ],
    ids=['runner', 'queue option'],
)
def test_contributing_names_each_file_with_a_list_of_what_is_there(new: str, entry: str, files: int) -> None:
    paths = [house_page.ROOT / 'setup.cfg', *house_page.PACKAGE.glob('**/*.py')]
    lists = [path.name for path in paths if re.search(entry, path.read_text(), re.MULTILINE)]
    assert len(lists) == files
    text = (house_page.ROOT / 'CONTRIBUTING.md').read_text()
    row = next(line for line in text.splitlines() if line.startswith(f'| {new} |'))
    assert [name for name in lists if f'{name}`' not in row] == []


def test_the_decision_about_libraries_is_about_the_code_that_is_there() -> None:
    """Its lengths are those of a day, so they may be some percent off."""
    page = house_page.ROOT / 'docs' / 'decisions' / '0022-by-hand-or-by-library.md'
    claims = re.findall(r'`((?:\w+/)?\w+)`, (\d+) lines', page.read_text())
    assert len(claims) > 4
    for name, said in claims:
        root = house_page.ROOT if name.startswith('runners/') else house_page.PACKAGE
        lines = len((root / f'{name}.py').read_text().splitlines())
        assert abs(int(said) - lines) * 10 <= lines, f'{name} has {lines} lines'


def test_every_room_has_its_place_in_the_picture() -> None:
    rooms = {path.parent.name for path in house_page.PACKAGE.glob('*/__init__.py')}
    assert rooms - {name for row in house_page.storeys() for name in row} == set()


def test_a_sentence_ends_where_the_next_begins() -> None:
    assert house_page.first_sentence('Reads `a.cfg`, or\nnot.  It is\n\nmore') == 'Reads `a.cfg`, or not.'
