"""The options of a queue: the sections ``[queue.NAME]`` and ``[queue.GLOB]``, laid over each other.

The most specific section that sets a key decides that key: the section of exactly that name, else the glob with
the most literal characters, else, among equals, the one further down in the file.  So ``[queue.*]`` sets what holds
everywhere, ``[queue.lists-*]`` the options that differ for some, and ``[queue.lists-big]`` needs to say one thing only.

Globs do not reach the bad queue.  ``[queue.*] ttl = 1d`` is written for queues that work, and must not throw away what failed;
it can be said in ``[queue.bad]``.  For the same reason it is durable, whatever the installation's default.

Rejected: the whole of the most specific section, nothing of the others (each exception would have to repeat everything).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from switchboard.config.inifile import Section
from switchboard.options import QueueOptions
from switchboard.store.layout import BAD

_WILD = frozenset('*?')


@dataclass(frozen=True, slots=True)
class QueueRule:
    """One section: the queues it is for, and the values it sets, by field of `QueueOptions`."""

    pattern: str
    values: Mapping[str, Any]
    section: Section = field(compare=False, repr=False)

    @property
    def is_glob(self) -> bool:
        """Is the section for all queues of a form, not for one name?"""
        return bool(_WILD & set(self.pattern))

    def matches(self, name: str) -> bool:
        """:return: whether the section is for the queue `name`."""
        if not self.is_glob:
            return name == self.pattern
        # Names hold no brackets, so the third wildcard of fnmatch is none here.
        return name != BAD and fnmatch.fnmatchcase(name, self.pattern)


class QueueRules(NamedTuple):
    """All queue sections: globs, the least specific first, and those of one name.

    :param default: the options where no section says anything.
    """

    default: QueueOptions = QueueOptions()
    globs: tuple[QueueRule, ...] = ()
    named: Mapping[str, QueueRule] = {}

    @classmethod
    def of(cls, default: QueueOptions, rules: Iterable[QueueRule]) -> QueueRules:
        """Put sections, given in the order of the file, into the order in which they are laid over each other."""
        rules = list(rules)
        globs = [rule for rule in rules if rule.is_glob]
        globs.sort(key=lambda rule: sum(char not in _WILD for char in rule.pattern))
        return cls(default, tuple(globs), {rule.pattern: rule for rule in rules if not rule.is_glob})

    def rules_for(self, name: str) -> list[QueueRule]:
        """:return: the sections for the queue `name`, the least specific first."""
        globs = [rule for rule in self.globs if rule.matches(name)]
        return [*globs, self.named[name]] if name in self.named else globs

    def options(self, name: str) -> QueueOptions:
        """:return: the options of the queue `name`, declared or not."""
        values: dict[str, Any] = {}
        for rule in self.rules_for(name):
            values |= rule.values
        default = self.default._replace(durability='full') if name == BAD else self.default
        return default._replace(**values) if values else default

    def deciding(self, name: str, option: str) -> QueueRule | None:
        """:return: the section that decides one field of a queue, or None where the default does."""
        return next((rule for rule in reversed(self.rules_for(name)) if option in rule.values), None)

    def idle_globs(self, names: Iterable[str]) -> list[QueueRule]:
        """:return: the globs that decide nothing for any of `names`, though they set something."""
        busy: set[str] = set()
        for name in names:
            deciding = {option: rule for rule in self.rules_for(name) for option in rule.values}
            busy.update(rule.pattern for rule in deciding.values())
        return [rule for rule in self.globs if rule.values and rule.pattern not in busy]


def is_pattern(text: str) -> bool:
    """:return: whether `text` can be a glob over queue names: such a name, with ``*`` and ``?`` in it."""
    return re.fullmatch(r'[A-Za-z0-9_@+,~%*?][A-Za-z0-9_@+,~%*?.-]*', text, re.ASCII) is not None
