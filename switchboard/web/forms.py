"""Forms and queries, read within bounds: each number has a largest value, each text a length, each list a number of members."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl

from switchboard.errors import SwitchboardError

MAX_FIELDS = 2100
MAX_TEXT = 8000
# Half a character of a message is in the links that select by it, and is found by them.
HALVES = 'surrogatepass'


class BadRequestError(SwitchboardError):
    """A form or a query that cannot be meant."""


class Form:
    """The fields of a query or a form."""

    def __init__(self, fields: Mapping[str, tuple[str, ...]]) -> None:
        self._fields = fields

    @classmethod
    def parse(cls, text: str, max_text: int = MAX_TEXT) -> Form:
        """Read ``application/x-www-form-urlencoded``.

        :param max_text: how long a value may be.
        :raises BadRequestError: it is none, or has too much.
        """
        try:
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors=HALVES)
        except (ValueError, UnicodeDecodeError) as error:
            raise BadRequestError('the request cannot be read, or has too many fields') from error
        fields: dict[str, tuple[str, ...]] = {}
        for key, value in pairs:
            if len(value) > max_text or len(key) > 100:
                raise BadRequestError(f'{key[:100]} is too long')
            fields[key] = (*fields.get(key, ()), value)
        return cls(fields)

    def has(self, name: str) -> bool:
        """:return: whether it was sent, be it empty."""
        return name in self._fields

    def text(self, name: str, default: str = '', limit: int = MAX_TEXT) -> str:
        """:return: the value as text.

        :raises BadRequestError: it is longer, or there are several.
        """
        values = self._fields.get(name, ())
        if len(values) > 1 or (values and len(values[0]) > limit):
            raise BadRequestError(f'{name} is there twice, or too long')
        return values[0] if values else default

    def number(self, name: str, default: int, lowest: int, highest: int) -> int:
        """:return: the value as a whole number.

        :raises BadRequestError: it is none, or beyond its bounds.
        """
        text = self.text(name)
        if not text:
            return default
        if not (text.isascii() and text.isdecimal() and len(text) < 12 and lowest <= int(text) <= highest):
            raise BadRequestError(f'{name} must be a number from {lowest} to {highest}')
        return int(text)

    def choice(self, name: str, known: Collection[str], default: str = '') -> str:
        """:return: the value, as one of some words.

        :raises BadRequestError: it is none of them.
        """
        text = self.text(name) or default
        if text not in known:
            raise BadRequestError(f'{name} must be one of {", ".join(sorted(known))}')
        return text

    def all(self, name: str, limit: int) -> tuple[str, ...]:
        """:return: all values of a field.

        :raises BadRequestError: there are more.
        """
        values = self._fields.get(name, ())
        if len(values) > limit:
            raise BadRequestError(f'{name}: at most {limit} at once')
        return values
