"""Tests of the check that machines reach each other: it answers, or says what is wrong, within its patience."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from places import ROOT

from dreamportrait.core.network import JOIN_SECONDS, check, join_seconds, own, reach


@pytest.fixture
def server() -> Iterator[int]:
    """Yield the port of something that listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def closed() -> int:
    """Return a port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


def test_a_machine_that_answers(server: int) -> None:
    assert reach("127.0.0.1", server, 1) == "127.0.0.1"
    assert reach("localhost", server, 1) == "127.0.0.1"


def test_a_machine_that_answers_later(closed: int) -> None:
    def listen() -> None:
        time.sleep(0.3)
        with socket.create_server(("127.0.0.1", closed)) as listening:
            listening.accept()[0].close()

    thread = threading.Thread(target=listen)
    thread.start()
    assert reach("127.0.0.1", closed, 30) == "127.0.0.1"
    thread.join()


@pytest.mark.parametrize("address", ["127.0.0.1", "nowhere.invalid"])
def test_a_machine_that_does_not_answer(closed: int, address: str) -> None:
    with pytest.raises(ValueError, match=rf"nothing answers at {address}:{closed} after 0.3 s \(.+\)"):
        reach(address, closed, 0.3)


def test_an_own_address(closed: int, server: int) -> None:
    assert own("localhost", closed, 1) == "127.0.0.1"
    with pytest.raises(ValueError, match=f"port {server} is in use here; end the other run"):
        own("127.0.0.1", server, 30)  # at once
    with pytest.raises(ValueError, match="192.0.2.1 is not this machine"):  # an address of documents
        own("192.0.2.1", closed, 30)
    with pytest.raises(ValueError, match="nowhere.invalid is not this machine"):
        own("nowhere.invalid", closed, 0.3)


def test_messages_name_the_machine(closed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOIN_SECONDS, "0.1")
    with pytest.raises(ValueError, match=r"machine 3 \(.+\), MASTER_ADDR=127.0.0.1: nothing answers .*that all mach"):
        check("127.0.0.1", str(closed), "3")
    with pytest.raises(ValueError, match="MASTER_PORT=70000: must be a free port"):
        check("127.0.0.1", "70000", "3")
    with pytest.raises(ValueError, match="NODE_RANK=x: must be the number"):
        check("127.0.0.1", "1000", "x")


@pytest.mark.parametrize("text", ["0", "-3", "soon", "inf", "nan"])
def test_how_long_to_wait(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(JOIN_SECONDS, raising=False)
    assert join_seconds() < 60  # so that a wrong address is told within a minute
    monkeypatch.setenv(JOIN_SECONDS, text)
    with pytest.raises(ValueError, match=f"{JOIN_SECONDS}={text}: must be a number of seconds above 0"):
        join_seconds()


def test_as_a_command(server: int, closed: int) -> None:
    def run(port: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dreamportrait.core.network", "127.0.0.1", str(port), "1"],
            env=os.environ | {"PYTHONPATH": str(ROOT), JOIN_SECONDS: "0.1"},
            capture_output=True,
            text=True,
            check=False,
        )

    assert run(server).stdout == "127.0.0.1\n"
    done = run(closed)
    assert done.returncode == 1 and done.stderr.startswith("Error: machine 1 (") and done.stderr.count("\n") == 1
