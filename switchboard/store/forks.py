"""Fork handlers: a child closes and forgets what belongs to its parent.

That is descriptors whose locks the two share, connections, and locks of threads that are not in the child.  A class whose
objects hold such a thing keeps a set of them all, and says how one of them lets go.  The set is weak: an object that nobody uses any
more has nothing to let go of.

Rejected: comparing process numbers at each use, which costs each use, and lets a child that uses nothing keep the locks of its
dead parent.  `pool` keeps a list of its own, because to load `weakref` takes `drop` a twentieth of its time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakSet

T = TypeVar('T')


def after_fork(action: Callable[[T], object]) -> WeakSet[T]:
    """Have something done in each forked child, with each of some objects, for as long as they are there.

    :param action: called in the child; must not talk to anybody, for the parent goes on with the copied connections.
    :return: a set to put the objects into.
    """
    objects: WeakSet[T] = WeakSet()

    def act_on_all() -> None:
        for each in set(objects):
            action(each)

    os.register_at_fork(after_in_child=act_on_all)
    return objects
