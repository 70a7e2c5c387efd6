"""Tests of the signals that ask a process to end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dreamportrait.core.signals import ENDING, Interrupted, Signals, held_back

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGUSR1: 138}


def send(number: int) -> None:
    """Send this process a signal that ends what it is doing."""
    os.kill(os.getpid(), number)
    time.sleep(10)


def test_these_signals_are_handled() -> None:
    assert set(ENDING) == set(CODES)


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_the_process_at_once_with_the_code_of_shells(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as raised, Signals():
        send(number)
    assert raised.value.code == CODES[number] and raised.value.message.startswith(signal.Signals(number).name)
    assert signal.getsignal(number) == before


def test_collected_signals_are_only_noted() -> None:
    with Signals() as signals:
        assert signals.received == 0
        with signals.collected():
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGHUP  # the first one
        with pytest.raises(Interrupted):
            send(signal.SIGTERM)


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_processes_that_are_started_while_signals_are_held_back_never_receive_them() -> None:
    with held_back():
        process = subprocess.Popen([sys.executable, "-c", "print('ready', flush=True); input()"], stdin=-1, stdout=-1)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.terminate()
    process.communicate(b"\n")
    assert process.returncode == 0
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(ENDING)
