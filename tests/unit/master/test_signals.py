"""Signals become bytes, and everything is put back afterwards."""

from __future__ import annotations

import os
import select
import signal
import threading

from switchboard.master.signals import SignalPipe, blocked


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
        with blocked() as before:
            assert signal.SIGUSR1 not in before
            # To this thread: the process may have another one, in which the signal is not blocked.
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            assert pipe.take() == []
        assert pipe.take() == [signal.SIGUSR1]
    finally:
        pipe.close()
