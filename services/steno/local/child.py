"""One child process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_LEASH = Path(__file__).with_name("leash.py")
_LOOK_SECONDS = 0.05
_CHECK_SECONDS = 5.0


class StartError(Exception):
    """A child process ended, or was not ready in time."""


@dataclass(frozen=True)
class Command:
    """What to run, and how to end it."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    """All of it: nothing is inherited."""
    log: Path
    """Where its output is appended."""
    directory: Path | None = None
    """Working directory."""
    user: str | None = None
    """System user to run as, when we are root."""
    stop_signal: signal.Signals = signal.SIGTERM
    """Asks it to end in good order."""
    orphan_signal: signal.Signals = signal.SIGKILL
    """What the kernel sends it when we are gone."""


@dataclass
class Child:
    """A child process under its name. It can be started again after it ended.

    It is its own process group, so Ctrl-C in a terminal reaches only us, and what it leaves
    behind can be ended with it.
    """

    name: str
    command: Command
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _log_start: int = field(default=0, init=False)

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process and self.running else None

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """How it ended: its status, or minus the signal's number. None before that."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Starts it. Call this from the main thread."""
        assert not self.running, f"{self.name} runs already"
        command = self.command
        command.log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = command.log.stat().st_size if command.log.exists() else 0
        with command.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(_LEASH)),
                    *(str(os.getpid()), str(int(command.orphan_signal)), command.user or "-"),
                    *command.arguments,
                ],
                env=dict(command.environment),
                cwd=command.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    async def wait(self, timeout: float | None = None) -> int:
        """Waits until it has ended and returns its exit status. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while (status := self.exit_status) is None:  # noqa: ASYNC110 (nothing tells us)
                await asyncio.sleep(_LOOK_SECONDS)
        return status

    async def ready(self, check: Callable[[], Awaitable[object]], timeout: float) -> None:
        """Waits until a check passes, that is: raises nothing.

        Raises StartError if the process ends before, or takes longer than `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while self.running:
            try:
                async with asyncio.timeout(_CHECK_SECONDS):
                    await check()
                return
            except Exception as error:
                if time.monotonic() > deadline:
                    raise StartError(
                        f"{self.name} was not ready after {timeout:g} s ({error!r}); "
                        f"log: {self.command.log}"
                    ) from error
            await asyncio.sleep(_LOOK_SECONDS)
        raise self.failed()

    def failed(self) -> StartError:
        """The error that it ended though it should not have, with its last words."""
        last = next(reversed(self.log_tail().splitlines()), "it said nothing")
        return StartError(
            f"{self.name} ended ({how(self.exit_status)}): {last}\nlog: {self.command.log}"
        )

    async def done(self, timeout: float) -> None:
        """Starts it and waits until it has done its work.

        Raises StartError if it fails, or takes longer than `timeout` seconds.
        """
        self.start()
        try:
            if await self.wait(timeout) != 0:
                raise self.failed()
        except TimeoutError:
            raise StartError(
                f"{self.name} took longer than {timeout:g} s; log: {self.command.log}"
            ) from None
        finally:
            await self.kill()

    async def stop(self, grace: float = 5.0) -> None:
        """Asks it to end, and after `grace` seconds makes it. Safe to repeat."""
        if self.running and self._process:
            self._process.send_signal(self.command.stop_signal)
            with suppress(TimeoutError):
                await self.wait(grace)
        await self.kill()

    async def kill(self) -> None:
        """Ends it with `kill -9`, and what is left of its process group. Safe to repeat."""
        if self._process is None:
            return
        # The group may be gone; macOS says EPERM where only a zombie is left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self.wait()

    def log_tail(self) -> str:
        """What it wrote since it was started last, or the end of that."""
        if not self.command.log.exists():
            return ""
        with self.command.log.open("rb") as log:
            log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - 10_000))
            return log.read().decode(errors="replace").strip()


def how(status: int | None) -> str:
    """An exit status for people."""
    return f"exit status {status}" if status is None or status >= 0 else f"signal {-status}"
