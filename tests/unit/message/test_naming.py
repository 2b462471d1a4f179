"""Names: what is one, how they sort, how they are given out, and which slice holds them."""

from __future__ import annotations

import os
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.errors import UnknownQueueError
from switchboard.message.naming import (
    CLAIMED,
    NS_PER_S,
    PRESERVED,
    READY,
    UNFINISHED,
    FilebaseFinder,
    NameGenerator,
    Slice,
    check_queue_name,
    digest_of,
    format_when,
    is_filebase,
    join_names,
    make_filebase,
    make_slice,
    parse_filebase,
    with_when,
)
from switchboard.testing import FakeClock

DIGEST = '5f0c1e2b9a3d7c41f0e2b6a85d93c41700000007'
PLAIN = f'1732242000.123456789+{DIGEST}'

whens = st.integers(0, 10**10 * NS_PER_S - 1)
digests = st.text('0123456789abcdef', min_size=40, max_size=40)


class TestGrammar:
    @given(whens, digests, st.integers(0, 9))
    def test_a_name_reads_back_as_it_was_written(self, when_ns: int, digest: str, priority: int) -> None:
        filebase = make_filebase(when_ns, digest, priority)
        name = parse_filebase(filebase)
        assert name is not None
        assert (name.when_ns, name.digest, name.priority) == (when_ns, digest, priority)
        assert is_filebase(filebase)
        assert digest_of(filebase) == digest

    @given(st.lists(whens, min_size=2, max_size=10))
    def test_names_sort_as_their_times(self, times: list[int]) -> None:
        assert sorted(map(format_when, times)) == [format_when(time) for time in sorted(times)]

    @pytest.mark.parametrize('fraction', ['5', '50', '500000000'])
    def test_a_fraction_may_have_one_to_nine_digits(self, fraction: str) -> None:
        name = parse_filebase(f'1732242000.{fraction}+{DIGEST}')
        assert name is not None
        assert name.when_ns == 1_732_242_000_500_000_000

    @pytest.mark.parametrize(
        'foreign',
        [
            '',
            'foo',
            DIGEST,
            f'1732242000+{DIGEST}',
            f'1732242000.+{DIGEST}',
            f'1732242000.1234567890+{DIGEST}',
            f'173224200.5+{DIGEST}',
            f'17322420000.5+{DIGEST}',
            f'-732242000.5+{DIGEST}',
            f'173224200\u0663.5+{DIGEST}',
            f'1732242000.5-{DIGEST}',
            f'1732242000.5+{DIGEST[:-1]}',
            f'1732242000.5+{DIGEST}0',
            f'1732242000.5+{DIGEST.upper()}',
            f'{PLAIN}+p0',
            f'{PLAIN}+p10',
            f'{PLAIN}+p',
            f'{PLAIN}+q1',
            f'{PLAIN}\n',
            f' {PLAIN}',
            f'{PLAIN}.pck',
            f'../{PLAIN}',
        ],
    )
    def test_what_is_of_another_form_is_foreign(self, foreign: str) -> None:
        assert parse_filebase(foreign) is None
        assert not is_filebase(foreign)

    @given(st.text(max_size=80) | st.from_regex(r'[0-9]{9,11}\.[0-9]{0,10}\+[0-9a-f]{39,41}(\+p.)?\Z'))
    def test_both_ways_to_ask_agree(self, text: str) -> None:
        assert is_filebase(text) == (parse_filebase(text) is not None)

    def test_another_time_leaves_digest_and_priority(self) -> None:
        assert with_when(f'{PLAIN}+p7', 5 * NS_PER_S + 1) == f'0000000005.000000001+{DIGEST}+p7'


class TestQueueNames:
    @pytest.mark.parametrize('name', ['in', 'a', 'A-b.c_d@e+f,g~h%i', '9', 'x' * 100])
    def test_a_queue_may_be_called_so(self, name: str) -> None:
        assert check_queue_name(name) == name

    @pytest.mark.parametrize(
        'name',
        ['', '.', '..', '.run', '-x', 'a/b', 'a:b', 'a b', 'h\u00e4', 'a\n', 'a\0', 'x' * 101, 'lost+found'],
    )
    def test_and_not_so(self, name: str) -> None:
        with pytest.raises(UnknownQueueError, match='cannot be a queue name'):
            check_queue_name(name)


def shown(slice_: Slice) -> tuple[int, int]:
    return slice_.index, slice_.count


@st.composite
def slices(draw: st.DrawFn) -> Slice:
    """Any slice of any number of them."""
    count = draw(st.integers(1, 5000))
    return Slice(draw(st.integers(0, count - 1)), count)


@st.composite
def names_of_a_directory(draw: st.DrawFn, slice_: Slice) -> list[str]:
    """Entries in all states, at the slice's ends above all, and what else may lie there."""
    first, last = (int(digits, 16) for digits in slice_.digits())
    edges = [digits % (1 << 32) for end in (first, last) for digits in (end - 1, end, end + 1)]
    digits = st.sampled_from(edges) | st.integers(0, (1 << 32) - 1)
    entries = st.builds(
        lambda when, eight, rest, priority, suffix: f'{when}+{eight:08x}{rest:032x}{priority}{suffix}',
        st.sampled_from(
            ['1732242000.123456789', '1732242000.5', '0000000000.0', '1732242000.', '9999999999.123']
        ),
        digits,
        st.integers(0, (1 << 128) - 1),
        st.sampled_from(['', '', '', '+p1', '+p9', '+p0', '+q']),
        st.sampled_from([READY, READY, CLAIMED, PRESERVED, UNFINISHED, '', '.txt', READY + READY]),
    )
    foreign = st.text(min_size=1, max_size=90).filter(lambda name: '/' not in name)
    return draw(st.lists(entries | foreign, max_size=12))


class TestFinder:
    @given(st.data(), slices(), st.sampled_from([READY, CLAIMED, PRESERVED]))
    def test_finds_what_each_name_by_itself_says(
        self, data: st.DataObject, slice_: Slice, suffix: str
    ) -> None:
        names = data.draw(names_of_a_directory(slice_))
        finder, joined = FilebaseFinder(slice_), join_names(names)
        bases = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
        assert finder.filebases(joined, suffix) == [
            filebase
            for filebase in bases
            if parse_filebase(filebase) is not None and slice_.contains(filebase)
        ]
        known = READY, CLAIMED, PRESERVED, UNFINISHED
        assert finder.others(joined) == [
            name for name in names if not name.endswith(known) or parse_filebase(name[: -len(READY)]) is None
        ]

    @given(slices())
    def test_the_digits_of_a_slice_are_those_that_it_holds(self, slice_: Slice) -> None:
        first, last = (int(digits, 16) for digits in slice_.digits())
        for digits in (first - 1, first, last, last + 1):
            if 0 <= digits < 1 << 32:
                filebase = f'1732242000.5+{digits:08x}{"0" * 32}'
                assert slice_.contains(filebase) == (first <= digits <= last)


class TestSlices:
    @given(st.integers(1, 300), digests)
    def test_each_digest_is_in_exactly_one_slice_of_any_count(self, count: int, digest: str) -> None:
        filebase = f'1732242000.5+{digest}'
        assert sum(Slice(index, count).contains(filebase) for index in range(count)) == 1

    @pytest.mark.parametrize('count', [2, 3, 5, 7, 12])
    def test_slices_are_ranges_of_equal_size(self, count: int) -> None:
        rng = random.Random(count)
        filebases = [f'1732242000.5+{rng.randbytes(20).hex()}' for _ in range(6000)]
        shares = [sum(map(Slice(index, count).contains, filebases)) for index in range(count)]
        assert sum(shares) == 6000
        assert min(shares) > 6000 / count * 0.8

    @pytest.mark.parametrize('count', [3, 5, 7])
    def test_the_first_and_the_last_digest_are_in_the_first_and_the_last_slice(self, count: int) -> None:
        assert Slice(0, count).contains(f'1732242000.5+{"0" * 40}')
        assert Slice(count - 1, count).contains(f'1732242000.5+{"f" * 40}')

    def test_the_time_does_not_choose_the_slice(self) -> None:
        assert len({Slice(1, 3).contains(f'{second:010d}.5+{DIGEST}') for second in range(100)}) == 1

    def test_without_an_index_it_is_all_of_it(self) -> None:
        assert shown(make_slice(None, 1)) == shown(make_slice(None, 4)) == (0, 1)
        assert shown(make_slice(2, 3)) == (2, 3)

    @pytest.mark.parametrize('index', [None, 0, 1, 7, -1])
    def test_of_one_slice_any_index_is_that_slice(self, index: int | None) -> None:
        assert shown(make_slice(index, 1)) == (0, 1)

    @pytest.mark.parametrize(('index', 'count'), [(None, 0), (0, -1), (3, 3), (-1, 3)])
    def test_a_slice_outside_its_count_is_an_error(self, index: int | None, count: int) -> None:
        with pytest.raises(ValueError, match='slice'):
            make_slice(index, count)


class TestNamer:
    def test_times_go_on_while_the_clock_stands_still(self) -> None:
        name_generator = NameGenerator(FakeClock())
        times = [name_generator.next_when_ns() for _ in range(5)]
        assert [later - earlier for earlier, later in pairwise(times)] == [1] * 4

    def test_times_go_on_when_the_clock_is_set_back_and_then_follow_it_again(self) -> None:
        clock = FakeClock()
        name_generator = NameGenerator(clock)
        first = name_generator.next_when_ns()
        clock.set_back(3600)
        assert name_generator.next_when_ns() == first + 1
        clock.advance(3601)
        assert name_generator.next_when_ns() == clock.time_ns() > first + 1

    def test_digests_are_never_the_same_and_begin_as_asked(self) -> None:
        name_generator = NameGenerator()
        digests = {name_generator.digest('deadbeef') for _ in range(1000)}
        assert len(digests) == 1000
        assert all(digest.startswith('deadbeef') and len(digest) == 40 for digest in digests)

    def test_two_namers_never_give_the_same_digest(self) -> None:
        one, other = NameGenerator(), NameGenerator()
        assert (
            len({name_generator.digest('00000000') for name_generator in (one, other) for _ in range(10)})
            == 20
        )

    def test_a_child_after_a_fork_takes_a_number_of_its_own(self) -> None:
        name_generator = NameGenerator()
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(write_end, name_generator.digest('00000000').encode())
            finally:
                os._exit(0)
        os.close(write_end)
        of_child = os.read(read_end, 100).decode()
        os.close(read_end)
        os.waitpid(pid, 0)
        of_parent = name_generator.digest('00000000')
        assert of_child[8:24] != of_parent[8:24]
