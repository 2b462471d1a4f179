"""The first of many names are those that a sort would put first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from switchboard.queue.smallest_names import SmallestNames

NAMES = st.lists(st.text('abc', max_size=4), max_size=60)


@given(NAMES, st.integers(1, 8), st.booleans())
def test_the_first_are_kept_and_never_more_than_twice_as_many(
    names: list[str], limit: int, backwards: bool
) -> None:
    key = (lambda name: name[::-1]) if backwards else None
    firsts = SmallestNames(limit, key)
    for name in names:
        firsts.extend([name])
        assert len(firsts) < 2 * limit
    expected = sorted(names, key=key)
    kept = firsts.sorted()
    assert [key(name) if key else name for name in kept[:limit]] == [
        key(name) if key else name for name in expected[:limit]
    ]
    if firsts.known_up_to is None:
        assert len(kept) == len(names)
    else:  # up to the last known one nothing is missing that differs from it
        before = [name for name in names if (key(name) if key else name) < firsts.known_up_to]
        assert sorted(before) == sorted(
            name for name in kept if (key(name) if key else name) < firsts.known_up_to
        )


@given(NAMES)
def test_without_a_limit_all_are_kept(names: list[str]) -> None:
    firsts = SmallestNames(None)
    for name in names:
        firsts.extend([name])
    assert firsts.sorted() == sorted(names)
    assert firsts.known_up_to is None
