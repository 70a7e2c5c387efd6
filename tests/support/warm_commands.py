"""Python commands as forks of a process that has imported what they need: imports are most of the time of small ones.

    with warm_commands(variables) as warm:
        subprocess.run(["dreamportrait", "train", ...], env=warm)

In `warm`, `python`, `dreamportrait` and `torchrun` are clients of a server. For each, the server forks a process with
the client's words, folder, environment and streams. Signals are passed on, and a client ends as its process does.
Elsewhere than on Linux, commands are processes of their own: not every system keeps messages of sockets apart.
"""

import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

COMMANDS = ("python", "dreamportrait", "torchrun")
MESSAGE = 2**20  # bytes; longer than any environment


@contextmanager
def warm_commands(variables: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield `variables`, changed so that they find clients in place of commands."""
    if sys.platform != "linux":
        yield dict(variables)
        return
    with tempfile.TemporaryDirectory() as folder:  # pytest's folders may be too long for the address of a socket
        address = Path(folder, "server")
        for name in COMMANDS:
            # Isolated and without site-packages, a client starts at once.
            command = f'exec {sys.executable} -I -S {__file__} {address} {name} "$@"'
            Path(folder, name).write_text(f"#!/bin/sh\n{command}\n")
            Path(folder, name).chmod(0o755)
        server = subprocess.Popen([sys.executable, __file__, address], env=variables, stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None and server.stdout.readline() == b"ready\n"
            path = os.pathsep.join([folder, variables["PATH"]])
            yield {**variables, "PATH": path, "PYTHON_EXEC": f"{folder}/python"}  # torchrun starts PYTHON_EXEC
        finally:
            server.kill()
            server.communicate()


def ask(address: str, words: list[str]) -> int:
    """Run a command by the server and return its exit code."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(address)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda told, _: server.send(bytes([told])))
        request = {"words": words, "folder": os.getcwd(), "variables": dict(os.environ)}
        socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
        return int(server.recv(MESSAGE))


def serve(address: str) -> list[str]:
    """Answer clients for ever. Return in each fork: the words of its command."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers need no one to wait for them
    print("ready", flush=True)
    while True:
        client, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            return keep(client)
        client.close()


def keep(client: socket.socket) -> list[str]:
    """Fork a command and pass signals and its exit code on. Return in the fork: the words of the command."""
    message, streams, *_ = socket.recv_fds(client, MESSAGE, 3)
    child = os.fork()
    if child == 0:
        client.close()
        request = json.loads(message)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["variables"])
        return request["words"]
    for stream in (*streams, 0, 1, 2):
        os.close(stream)  # readers wait for the end of all copies
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            client.send(str(code if code >= 0 else 128 - code).encode())
            os._exit(0)
        if select.select([client], [], [], 0.02)[0]:
            told = client.recv(1)
            os.kill(child, told[0] if told else signal.SIGKILL)  # a client that is killed takes its command along


def execute(words: list[str]) -> None:
    """Run a command as Python does."""
    command, *words = words
    if command != "python":
        words = [str(shutil.which(command, path=str(Path(sys.executable).parent))), *words]
    words = [word for number, word in enumerate(words) if (number, word) != (0, "-u")]
    if words[0] == "-m":
        sys.path[0], sys.argv = os.getcwd(), words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv = str(Path(words[0]).resolve().parent), words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__" and len(sys.argv) > 2:
    sys.exit(ask(sys.argv[1], sys.argv[2:]))
elif __name__ == "__main__":
    import open_clip  # type: ignore[import-untyped]  # noqa: F401
    import preloaded  # noqa: F401

    gc.freeze()  # or each fork would look through all objects of all packages when it ends: two seconds
    execute(serve(sys.argv[1]))
