"""From a file's bytes to an entry: what is wrong is told, and nothing is believed that was not checked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.errors import ContentDisallowedError, CorruptEntryError
from switchboard.message.entry import read_entry
from switchboard.message.journal import pack_record
from switchboard.message.naming import NameGenerator
from switchboard.message.packing import Packer
from switchboard.message.serializers import Serializers
from switchboard.options import QueueOptions
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.reading import peek

PACKED = Packer('in', QueueOptions(), Serializers(), NameGenerator()).pack('body', {'n': 1})
DIGEST = PACKED.filebase.partition('+')[2]
OTHER = PACKED.filebase[:-1] + ('0' if PACKED.filebase[-1] != '0' else '1')


def records(*events: str, digest: str = DIGEST) -> bytes:
    return b''.join(pack_record({'event': event}, digest) for event in events)


class TestWhole:
    def test_an_entry_is_taken_apart(self) -> None:
        entry = read_entry(PACKED.filebase, PACKED.content)
        assert (entry.kind, entry.metadata, entry.body, entry.records) == ('text', b'{"n":1}', b'body', [])
        assert entry.end == len(PACKED.content)
        assert entry.load(Serializers()) == ('body', {'n': 1, 'version': 3, '_parsemsg': False})

    def test_its_history_follows_and_ends_where_the_next_record_goes(self) -> None:
        content = PACKED.content + records('one', 'two')
        entry = read_entry(PACKED.filebase, content + records('torn')[:-1])
        assert [record['event'] for record in entry.records] == ['one', 'two']
        assert entry.end == len(content)

    def test_the_tail_of_a_message_that_the_file_held_before_is_no_history(self) -> None:
        content = PACKED.content + records('old', digest='0' * 40)
        entry = read_entry(PACKED.filebase, content)
        assert (entry.records, entry.end) == ([], len(PACKED.content))

    def test_the_history_changes_metadata_but_not_what_is_always_there(self) -> None:
        entry = read_entry(PACKED.filebase, PACKED.content)
        entry.records += [
            {'set': {'n': 2, 'version': 9, 'x': 1}},
            {'drop': ['x', 'unknown'], 'set': []},
            {'set': {'y': 1}},
        ]
        assert entry.msgdata(Serializers()) == {'n': 2, 'y': 1, 'version': 3, '_parsemsg': False}
        assert entry.load(Serializers())[1] == entry.msgdata(Serializers())


class TestDamaged:
    @given(st.data())
    def test_whatever_the_bytes_are_reading_never_raises(self, data: st.DataObject) -> None:
        content = bytearray(PACKED.content + records('one'))
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        cut = bytes(content)[: data.draw(st.integers(0, len(content)))]
        entry = read_entry(PACKED.filebase, cut)
        whole = cut.startswith(PACKED.content)
        assert (entry.damage is None) == whole
        if not whole:
            with pytest.raises(CorruptEntryError):
                entry.load(Serializers())

    @given(st.binary(max_size=100))
    def test_nor_does_it_for_any_other_file(self, content: bytes) -> None:
        entry = read_entry(PACKED.filebase, content)
        assert entry.damage is not None or entry.kind == 'mailman'
        assert entry.end == len(content)

    def test_a_swapped_file_keeps_the_kind_that_its_header_names(self) -> None:
        entry = read_entry(OTHER, PACKED.content)
        assert (entry.kind, entry.body) == ('text', PACKED.content)
        with pytest.raises(CorruptEntryError, match='swapped'):
            entry.load(Serializers())

    def test_a_damaged_file_can_have_a_history_of_its_own(self) -> None:
        entry = read_entry(PACKED.filebase, b'half a file' + records('preserved'))
        assert (entry.body, entry.kind) == (b'half a file', 'unknown')
        assert [record['event'] for record in entry.records] == ['preserved']

    def test_damage_is_told_before_the_kind_is_looked_at(self) -> None:
        with pytest.raises(CorruptEntryError):
            read_entry(OTHER, PACKED.content).load(Serializers(accept=('mail',)))

    def test_a_kind_that_is_not_accepted_is_not_read(self) -> None:
        with pytest.raises(ContentDisallowedError, match='text'):
            read_entry(PACKED.filebase, PACKED.content).load(Serializers(accept=('mail',)))


class TestPeeking:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Folder:
        (tmp_path / f'{PACKED.filebase}.pck').write_bytes(PACKED.content)
        return Folder(tmp_path, Disk())

    def test_it_reads_without_a_claim(self, folder: Folder) -> None:
        entry = peek(folder, PACKED.filebase, '.pck')
        assert entry is not None
        assert entry.body == b'body'
        assert folder.names() == [f'{PACKED.filebase}.pck']

    def test_what_is_not_there_is_none(self, folder: Folder) -> None:
        assert peek(folder, PACKED.filebase, '.bak') is None

    def test_it_neither_waits_for_a_fifo_nor_follows_a_link(self, folder: Folder, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / f'{OTHER}.pck')
        (tmp_path / f'{OTHER}.bak').symlink_to(f'{PACKED.filebase}.pck')
        for suffix in ('.pck', '.bak'):
            with pytest.raises(OSError, match=r'seek|symbolic'):
                peek(folder, OTHER, suffix)
