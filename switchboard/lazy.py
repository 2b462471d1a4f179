"""Names that a package hands on, imported when they are first asked for (PEP 562).

``switchboard.drop`` is started once for each mail that a mail server delivers: a package's ``__init__`` must not import what only others use.
"""

from __future__ import annotations

TYPE_CHECKING = False  # the module `typing` takes longer to load than all that `drop` needs
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazy(module: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """Make a module's ``__getattr__`` that imports a name when it is first asked for.

    :param names: by the module where they are defined, with blanks between them.
    """

    def look_up(name: str) -> object:
        home = next((home for home, known in names.items() if name in known.split()), None)
        if home is None:
            raise AttributeError(f'module {module!r} has no attribute {name!r}')
        import importlib
        import sys

        value: object = getattr(importlib.import_module(home), name)
        setattr(sys.modules[module], name, value)
        return value

    return look_up
