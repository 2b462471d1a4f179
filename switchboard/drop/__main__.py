"""``python -m switchboard.drop`` does what ``bin/drop`` does, and takes the time that site-packages take."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal

# The one status that all mail servers take for "try again later".
TRY_AGAIN = 75


def run(arguments: list[str]) -> int:
    """Store a message from standard input; one line on standard error says why not.

    :return: the exit status.
    """
    from switchboard.drop.program import main
    from switchboard.drop.request import CHECKOUT_CONFIG

    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    is_checkout = os.path.exists(f'{root}/{CHECKOUT_CONFIG}')
    reason = main(arguments, root=root if is_checkout else '')
    if not reason:
        return 0
    line = ' '.join(f'4.3.0 drop: {reason}'.split())[:320] + '\n'
    try:
        os.write(2, line.encode('ascii', 'backslashreplace')[:400])
    except OSError:
        pass  # the status says it as well
    return TRY_AGAIN


if __name__ == '__main__':
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # or it ends this with a traceback, wherever this is
    sys.exit(run(sys.argv[1:]))
