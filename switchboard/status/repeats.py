"""Lines of a log that repeat while nothing changes: each is written once, and again after a day.

The janitor is a new process in each round, and finds the same foreign file, or the same queue that cannot be read, every minute.  The
warnings of one janitor are known to the next: the master keeps them in between.  A line that was missing in one round is news in the next.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from zlib import adler32, crc32

AGAIN_AFTER_S = 86400
# So many lines are known again; of a longer list, the others are written each time.
MAX_KNOWN = 1000


class RepeatFilter(logging.Filter):
    """Lets a warning or an error pass if the round before had none like it, or wrote it a day ago.

    :param known: the lines of the round before, by checksum, and when each was written: the `noted` of that round.
    :param now_s: the time, on a clock that all rounds share.
    """

    def __init__(self, known: Mapping[str, int], now_s: int) -> None:
        super().__init__()
        self._known = known
        self._now_s = now_s
        self.noted: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        if record.levelno < logging.WARNING:
            return True
        text = f'{record.name} {record.getMessage()}'.encode('utf-8', 'surrogatepass')
        key = f'{crc32(text):08x}{adler32(text):08x}'
        since_s = self._known.get(key, self._now_s - AGAIN_AFTER_S)
        is_news = self._now_s - since_s >= AGAIN_AFTER_S
        if len(self.noted) < MAX_KNOWN:
            self.noted.setdefault(key, self._now_s if is_news else since_s)
        return is_news
