"""Signals become bytes, and everything is put back afterwards."""

from __future__ import annotations

import os
import select
import signal
import threading
import weakref

import pytest

from switchboard.master.signals import SignalPipe, exiting_on_signal, signals_blocked


def test_signals_come_out_in_the_order_of_their_first_coming_each_once() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    pipe = SignalPipe([signal.SIGUSR1, signal.SIGUSR2])
    try:
        for signum in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR2):
            signal.raise_signal(signum)
        assert select.select([pipe], [], [], 60)[0] == [pipe]
        assert pipe.take() == [signal.SIGUSR2, signal.SIGUSR1]
        assert pipe.take() == []
    finally:
        pipe.close()
    assert signal.getsignal(signal.SIGUSR1) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_flood_of_signals_blocks_nobody() -> None:
    pipe = SignalPipe([signal.SIGUSR1])
    try:
        while select.select([], [pipe.descriptors()[1]], [], 0)[1]:
            os.write(pipe.descriptors()[1], bytes([signal.SIGUSR1]) * 4096)
        signal.raise_signal(signal.SIGUSR1)
        assert pipe.take() == [signal.SIGUSR1]
    finally:
        pipe.close()


def test_a_blocked_signal_comes_when_it_may() -> None:
    pipe = SignalPipe([signal.SIGUSR1])
    try:
        with signals_blocked() as before:
            assert signal.SIGUSR1 not in before
            # To this thread: the process may have another one, in which the signal is not blocked.
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            assert pipe.take() == []
        assert pipe.take() == [signal.SIGUSR1]
    finally:
        pipe.close()


def test_told_to_stop_before_there_is_a_loop_it_leaves() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left, exiting_on_signal():
        signal.raise_signal(signal.SIGTERM)
    assert left.value.code == 0
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_what_a_handler_raises_where_nothing_may_be_raised_is_not_lost() -> None:
    """An import has callbacks of weak references: a master that was told to stop in one of them went on."""

    class Thing:
        pass

    with exiting_on_signal():
        thing = Thing()
        callback = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
        del thing
        assert callback() is None
        pipe = SignalPipe([signal.SIGTERM])
        try:
            assert pipe.take() == [signal.SIGTERM]
        finally:
            pipe.close()
    later = SignalPipe([signal.SIGTERM])
    try:
        assert later.take() == []
    finally:
        later.close()
