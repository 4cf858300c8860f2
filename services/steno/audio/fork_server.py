"""The process that forks decoders: started when the first is needed, and again when it has died.

A child of its own for each recording costs a fork, not the loading of libav. What the children of
one server share is where things lie in memory; none ever holds another's recording.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

from steno.audio.decoder import wire
from steno.audio.decoder.wire import Answer, Command, Reason
from steno.audio.errors import DecoderFailed

log = logging.getLogger(__name__)

BOOTSTRAP = """
import runpy, sys
sys.path.append(sys.argv[1])
runpy.run_module(sys.argv[2], run_name="__main__", alter_sys=True)
"""

PASSED_ON = ("LD_LIBRARY_PATH",)
"""All that it gets of the environment: where the interpreter's libraries are."""

START_SECONDS = 60.0
"""How long it may take to load its libraries, on a busy machine."""

END_SECONDS = 10.0
"""How long it may take to tell the end of a child that was killed, or has died."""

_REAP_SECONDS = 1.0


def server_command(module: str = "decoder") -> list[str]:
    """Returns the command that runs a module of `steno/audio` in an isolated interpreter.

    Isolated: no PYTHON* variables, no user site, and neither the working directory nor Steno's
    own source root on the path.
    """
    return [sys.executable, "-I", "-B", "-c", BOOTSTRAP, str(Path(__file__).parent), module]


def server_environment() -> dict[str, str]:
    """Returns the environment of the server and its children."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}


class Child:
    """A decoder, for one recording."""

    def __init__(
        self,
        stdout: asyncio.StreamReader,
        stdin: asyncio.StreamWriter,
        give_up: Callable[[], None],
    ) -> None:
        """Takes its ends of the pipe, and what ends it, and its server, by force."""
        self.stdout = stdout
        self.stdin = stdin
        self._give_up = give_up
        loop = asyncio.get_running_loop()
        self.forked: asyncio.Future[int] = loop.create_future()
        self.ended: asyncio.Future[int] = loop.create_future()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.forked.result()

    def end(self, status: int) -> None:
        """Notes its end, or that it never began."""
        if not self.forked.done():
            message = "The decoder could not be started (no process can be forked)."
            self.forked.set_exception(DecoderFailed(Reason.DECODER_UNAVAILABLE, message))
            self.forked.exception()  # whoever has waited may have gone: that is no error of ours
        self.ended.set_result(status)

    async def wait(self) -> int:
        """Waits for its end; returns its exit status, -n if signal n has killed it.

        A server that does not tell it in time is halted or hangs, and is killed.
        """
        try:
            async with asyncio.timeout(END_SECONDS):
                return await asyncio.shield(self.ended)
        except TimeoutError:
            self._give_up()
            return await self.ended


class ForkServer:
    """The other side of `steno.audio.decoder`'s fork server."""

    def __init__(self) -> None:
        """Starts it. Raises DecoderFailed if that can't be done."""
        self._control, theirs = _socket_pair()
        self._heard = bytearray()
        self._children: dict[int, Child] = {}
        self._numbers = count()
        self.loop = asyncio.get_running_loop()
        self.alive = True
        try:
            with theirs:
                self._process = subprocess.Popen(
                    server_command(),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=server_environment(),
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as error:
            self._control.close()
            raise _not_started(error) from error
        self.loop.add_reader(self._control, self._hear)

    @asynccontextmanager
    async def child(self) -> AsyncIterator[Child]:
        """A child that ends with the context. Raises DecoderFailed if there can be none."""
        number = next(self._numbers) % 2**32
        ours, theirs = _socket_pair()
        with theirs:
            stdout, stdin = await asyncio.open_connection(sock=ours)
            if not self.alive:  # it has died meanwhile, and nobody would end the child
                stdin.close()
                message = "The decoder could not be started (the process that forks it has died)."
                raise DecoderFailed(Reason.DECODER_UNAVAILABLE, message)
            child = Child(stdout, stdin, self._give_up)
            self._children[number] = child
            self._command(Command.FORK, number, theirs)
        try:
            try:
                async with asyncio.timeout(START_SECONDS):
                    await asyncio.shield(child.forked)
            except TimeoutError:
                raise DecoderFailed(
                    Reason.DECODER_UNAVAILABLE, "The decoder was not started in time."
                ) from None
            yield child
        finally:
            self._command(Command.KILL, number)
            child.stdin.close()
            await child.wait()

    def close(self) -> None:
        """Ends it, and all children, by force: it may be halted, and nothing of it is kept."""
        if not self.alive:
            return
        self.alive = False
        if not self.loop.is_closed():
            self.loop.remove_reader(self._control)
        self._control.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # it leads its own session
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_SECONDS)
        for child in self._children.values():
            child.end(-signal.SIGKILL)
        self._children.clear()
        if self._process.returncode is None:  # a busy machine takes long to take its memory back
            with suppress(RuntimeError):  # our own end is near, and init reaps it
                threading.Thread(target=self._process.wait, daemon=True).start()

    def _command(self, kind: Command, number: int, descriptor: socket.socket | None = None) -> None:
        if not self.alive:
            return
        sockets = [] if descriptor is None else [descriptor.fileno()]
        try:
            socket.send_fds(self._control, [wire.COMMAND.pack(kind, number)], sockets)
        except BlockingIOError:
            self._give_up()  # it has not listened for long
        except ConnectionError:
            pass  # it has died, and is about to be heard of

    def _give_up(self) -> None:
        if self.alive:
            log.error("the fork server does not answer: killed", extra={"action": "decode"})
        self.close()

    def _hear(self) -> None:
        try:
            heard = self._control.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionError:
            heard = b""
        if not heard:
            self.close()  # it was killed: its children die with it
            return
        self._heard += heard
        while len(self._heard) >= wire.ANSWER.size:
            kind, number, value = wire.ANSWER.unpack_from(self._heard)
            del self._heard[: wire.ANSWER.size]
            if kind == Answer.FORKED:
                self._children[number].forked.set_result(value)
            else:
                self._children.pop(number).end(value)


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    """Our end, which does not block, and theirs."""
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:  # too many files are open
        raise _not_started(error) from error
    ours.setblocking(False)
    return ours, theirs


def _not_started(error: OSError) -> DecoderFailed:
    message = f"The decoder could not be started ({error.strerror})."
    return DecoderFailed(Reason.DECODER_UNAVAILABLE, message)


_server: ForkServer | None = None


def fork_server() -> ForkServer:
    """Returns this process's server. Raises DecoderFailed if it can't be started."""
    global _server
    if _server is not None and _server.loop is not asyncio.get_running_loop():
        close()
    if _server is None or not _server.alive:
        _server = ForkServer()
    return _server


@atexit.register
def close() -> None:
    """Ends the server, if there is one."""
    global _server
    if _server is not None and _server.alive:
        _server.close()
    _server = None
