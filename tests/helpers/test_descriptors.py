"""Descriptors are told apart by what they lead to, and not counted."""

from __future__ import annotations

import os
from pathlib import Path

from tests.helpers.descriptors import Opened, open_files


def test_what_was_open_before_may_be_closed_meanwhile(tmp_path: Path) -> None:
    earlier, null = os.open(tmp_path, os.O_RDONLY), os.open(os.devnull, os.O_RDONLY)
    opened = Opened()
    assert opened() == []
    os.close(earlier)
    assert opened() == []
    os.dup2(null, earlier)  # the same number leads elsewhere now
    assert opened() == [os.devnull]
    os.close(earlier)
    assert opened() == []
    os.close(null)


def test_the_listing_itself_is_left_out(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    assert open_files()[descriptor] == str(tmp_path)
    assert open_files(os.getpid())[descriptor] == str(tmp_path)
    os.close(descriptor)
