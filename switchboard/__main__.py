"""``python -m switchboard`` is ``switchboard``."""

from __future__ import annotations

from switchboard.cli import main

if __name__ == '__main__':
    main()
