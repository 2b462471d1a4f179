"""A function, called in a process of its own that has done nothing but import it: to fork one that has run tests takes longer than what the child does.

::

    python -m tests.plugins.aside MODULE:FUNCTION

reads its arguments, a line of JSON for each call, and writes what it returns, or how it failed.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import traceback
from typing import Any, Self


class Aside:
    """The process.

    :param function: as ``module:function``; takes and returns what JSON holds.
    :param environment: what the process has in its environment besides.
    """

    def __init__(self, function: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'tests.plugins.aside', function],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            env={**os.environ, **environment},
        )

    def __call__(self, *arguments: Any) -> Any:
        """Call the function there.

        :raises AssertionError: it has failed.
        """
        asking, answering = self._process.stdin, self._process.stdout
        assert asking is not None
        assert answering is not None
        asking.write(f'{json.dumps(arguments)}\n')
        found, error = json.loads(answering.readline())
        assert error is None, error
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.communicate(timeout=60)


def main() -> None:
    module, _, name = sys.argv[1].partition(':')
    function = getattr(importlib.import_module(module), name)
    gc.freeze()  # nobody looks through what was imported again, and what is forked copies none of it for that
    for line in sys.stdin:
        try:
            answer = function(*json.loads(line)), None
        except Exception:
            answer = None, traceback.format_exc()
        print(json.dumps(answer), flush=True)


if __name__ == '__main__':
    main()
