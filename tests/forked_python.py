"""Interpreters for tests that need not import everything again.

An interpreter that reads a text model imports for many seconds. Tests that are not about imports start their
programs by the executable that :func:`started` makes. It behaves as ``sys.executable`` does (``-c``, ``-`` or
a file, the same streams, signals and exit code), but the program runs in a fork of one server, which imports
torch and the library when it is first asked. One server serves all processes of a run of pytest, and ends
with it. Descriptors other than the three standard streams aren't passed on.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

# Modules that the programs of tests import, except those that start threads on import.
_MODULES = (
    *("accelerate", "faiss", "sentence_transformers", "sklearn.linear_model", "torch", "matplotlib.figure"),
    *(
        "scipy.stats",
        "transformers.models.bert.modeling_bert",
        "nestling.cli",
        "nestling.domains.text.similarity",
    ),
    *("nestling.encoders.text.encoder", "nestling.encoders.text.workers.worker", "nestling.training.loop"),
)
_EXECUTABLE = """#!{python} -ISs
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
passed_on = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ignored = [number for number in passed_on if signal.getsignal(number) == signal.SIG_IGN]
def pass_on(number, frame):
    server.send(bytes([number]))
for number in passed_on:
    signal.signal(number, pass_on)
asked = dict(arguments=sys.argv[1:], folder=os.getcwd(), environment=dict(os.environ), ignored=ignored)
data = json.dumps(asked).encode()
socket.send_fds(server, [len(data).to_bytes(4, "big")], [0, 1, 2])
server.sendall(data)
for stream in range(3):
    os.close(stream)
code = int(server.recv(16) or 255)
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@contextmanager
def started() -> Iterator[Path]:
    """The executable that asks the server, which ends with the block."""
    with tempfile.TemporaryDirectory(prefix="nestling-tests-") as folder:
        server, executable = _start(Path(folder))
        yield executable
        server.communicate()


def _start(folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    address, executable = folder / "server", folder / "python"
    executable.write_text(_EXECUTABLE.format(python=sys.executable, address=str(address)))
    executable.chmod(0o755)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen()
    command = [sys.executable, __file__, str(listener.fileno())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # no thread is there when it forks
    server = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()], env=environment)
    listener.close()
    return server, executable


def _serve(listener: socket.socket) -> str | None:
    """In the server ``None``, when it is to end; in each fork the program that it is to run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest, whose end is seen by the pipe
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    is_ready = False
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            return None
        connection, _ = listener.accept()
        if not is_ready:
            for module in _MODULES:
                import_module(module)
            gc.collect()
            gc.freeze()
            is_ready = True
        if os.fork() == 0:
            listener.close()
            return _attend(connection)
        connection.close()


def _attend(connection: socket.socket) -> str:
    """Fork the program, pass signals on to it, and tell its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, streams, _, _ = socket.recv_fds(connection, 4, 3)
    size, data = int.from_bytes(head, "big"), b""
    while len(data) < size:
        data += connection.recv(size - len(data))
    child = os.fork()
    if child == 0:
        connection.close()
        return _become(json.loads(data), streams)
    for stream in streams:
        os.close(stream)
    status = 0
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if select.select([connection], [], [], 0.01)[0]:
            # It is gone without a signal that it could pass on: SIGKILL.
            os.kill(child, (connection.recv(1) or bytes([signal.SIGKILL]))[0])
    with suppress(BrokenPipeError):
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(asked: dict[str, Any], streams: list[int]) -> str:
    """Take over streams, folder, environment and arguments; the code to run."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in asked["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    sys.stdin = os.fdopen(0, encoding=encoding, closefd=False)
    sys.stdout = os.fdopen(1, "w", 1 if os.isatty(1) else -1, encoding, closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding, "backslashreplace", closefd=False)
    kind, *arguments = asked["arguments"]
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if kind == "-c":
        code, sys.path[0], sys.argv = arguments[0], "", ["-c", *arguments[1:]]
    elif kind == "-":
        code, sys.path[0], sys.argv = sys.stdin.read(), "", asked["arguments"]
    else:
        code, sys.path[0], sys.argv = Path(kind).read_text(), str(Path(kind).parent), asked["arguments"]
        main.__file__ = kind
    return code


def _run(program: str) -> NoReturn:
    """Run a program and end as an interpreter does, but for the modules, whose end takes a second."""
    code, is_interrupted = 0, False
    try:
        exec(compile(program, "<program>", "exec"), sys.modules["__main__"].__dict__)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException as error:  # noqa: BLE001 - as an interpreter does
        sys.excepthook(type(error), error, error.__traceback__)
        code, is_interrupted = 1, isinstance(error, KeyboardInterrupt)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    if is_interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)


if __name__ == "__main__":
    _program = _serve(socket.socket(fileno=int(sys.argv[1])))
    if _program is not None:
        _run(_program)
