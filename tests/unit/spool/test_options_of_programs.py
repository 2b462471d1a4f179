"""The options that a program gives to its queues in Python: what no configuration could say is refused, before a message is stored."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool, Switchboard, queue_defaults
from switchboard.errors import ConfigError
from switchboard.options import CHOICES, QueueOptions, RetryPolicy, check_values

WRONG: dict[str, list[Any]] = {
    'durability': ['Full', 'fast', None, True],
    'directory_sync': ['never', 2],
    'overflow': ['drop-head'],
    'serializer': ['xml', 'text', None],
    'ttl_s': ['1h', -1.0, float('nan'), True],
    'max_messages': ['3', 1.5, -1, True],
    'priority': [10, -1, '5', None],
    'scrub': ['no', 0, None],
    'retry': ['5s..1h', 5.0],
    'accept': ['json', None],
    'order_key': [3],
}
EACH = [(key, value) for key, values in WRONG.items() for value in values]
Way = Callable[[Path, str, Any], object]
WAYS: dict[str, Way] = {
    'Spool': lambda place, key, value: Spool(place, options=QueueOptions(**{key: value})),
    'Switchboard': lambda place, key, value: Switchboard('in', place, options=QueueOptions(**{key: value})),
    'queue': lambda place, key, value: Spool(place).queue('in', **{key: value}),
    'declare': lambda place, key, value: Spool(place).declare('in', options={key: value}),
}


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize(('key', 'value'), EACH)
def test_an_option_that_no_configuration_could_say_is_refused_with_its_name(
    tmp_path: Path, way: str, key: str, value: Any
) -> None:
    with pytest.raises(ConfigError, match=key):
        WAYS[way](tmp_path / 'place', key, value)
    assert not (tmp_path / 'place' / 'in').exists()


def test_a_misspelt_durability_is_not_taken_for_lazy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="durability: 'Full' is none of full, lazy"):
        Spool(tmp_path / 'spool', durability='Full')  # type: ignore[arg-type]  # which a program need not ask


def test_a_message_class_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='message_class'):
        Switchboard('in', tmp_path / 'in', message_class=5)  # type: ignore[arg-type]  # which a program need not ask


@pytest.mark.parametrize('key', QueueOptions._fields)
def test_each_option_is_checked(key: str) -> None:
    check_values(QueueOptions())
    with pytest.raises(ConfigError, match=key):
        check_values(QueueOptions()._replace(**{key: object()}))


def test_each_option_of_some_words_has_those_that_its_annotation_gives_a_type_checker() -> None:
    literals: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(Path(queue_defaults.__file__).read_text())):
        match node:
            case ast.Assign(
                targets=[ast.Name(id=name)], value=ast.Subscript(value=ast.Name(id='Literal'), slice=words)
            ):
                literals[name] = set(ast.literal_eval(words))
    annotations = {
        key: getattr(annotation, '__forward_arg__', annotation)
        for key, annotation in QueueOptions.__annotations__.items()
    }
    for key, name in annotations.items():
        if name in literals:
            assert set(CHOICES[key]) == literals.pop(name)
    assert not literals


def test_whole_numbers_are_times_and_lists_are_lists() -> None:
    check_values(QueueOptions(ttl_s=60, accept=['json'], retry=RetryPolicy(1.0), rate=0.5, message_class=str))


def test_a_url_that_no_configuration_names_is_read_as_one_of_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^\[queue\.out\] url: 'memory' is no broker that is known here"):
        Spool(tmp_path).queue('out', url='memory://')
