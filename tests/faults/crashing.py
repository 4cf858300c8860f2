"""`python -m faults.crashing`: a service that dies at the sites of its effects, at each place once.

What it is started with:

    STENO_CRASH_MODULE   the process, as `python -m` takes it
    STENO_CRASH_SERVICE  the service that it belongs to
    STENO_CRASH_FOLDER   where processes write down where they die; a place in it kills nobody again
    STENO_CRASH_CHANCE   of dying at a place that is new, while they are armed

The service's own code is not changed: methods of the platform are wrapped, and who calls them is
found by where the call stands.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import runpy
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from faults.crash_points import EFFECTS, SETTLING, Place, Site, site_at
from steno.platform import client, interceptors, messaging
from steno.v1.access_pb2 import AccessRule


class Crashes:
    """Where processes have died so far, as files in a folder that all share."""

    def __init__(self, folder: Path, chance: float = 0.0) -> None:
        self._folder = folder
        self._chance = chance
        self._armed = folder / "armed"

    def arm(self) -> None:
        """Processes die from now on."""
        self._armed.touch()

    def disarm(self) -> None:
        """Processes die no more."""
        self._armed.unlink(missing_ok=True)

    def dead_at(self) -> set[tuple[Site, Place]]:
        """All places."""
        found: set[tuple[Site, Place]] = set()
        for path in self._folder.glob("*|*|*"):
            process, name, place = path.name.split("|")
            found.add((Site(process, name), place))  # type: ignore[arg-type]
        return found

    def pass_by(self, site: Site, place: Place) -> None:
        """Dies here, if nobody has yet."""
        path = self._folder / "|".join((site.process, site.name, place))
        if not self._armed.exists() or path.exists() or random.random() > self._chance:
            return
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return  # a replica does
        os.kill(os.getpid(), signal.SIGKILL)

    def returning(self, site: Site) -> None:
        """An effect is done: dies before its caller knows, or one step of the loop after."""
        self.pass_by(site, "after")
        asyncio.get_running_loop().call_soon(self.pass_by, site, "returned")


def wrap(crashes: Crashes, service: str) -> None:
    """Puts the places around everything with an effect.

    Args:
        crashes: where to die.
        service: package of the service that runs here.
    """
    for name, methods in EFFECTS.items():
        module, _, owner = name.partition(":")
        kind = getattr(importlib.import_module(module), owner)
        for method in methods:
            around = _context if owner == "Pool" else _coroutine
            setattr(kind, method, around(crashes, getattr(kind, method), method))
    _wrap_settling(crashes, service)
    _wrap_answers(crashes, service)
    _wrap_calls(crashes, service)


def _caller(method: str) -> Site | None:
    frame = sys._getframe(2)
    return site_at(frame.f_code.co_filename, frame.f_lineno, method)


def _coroutine(crashes: Crashes, effect: Callable[..., Awaitable[Any]], method: str) -> Any:
    def wrapped(*args: Any, **options: Any) -> Awaitable[Any]:
        site = _caller(method)
        return effect(*args, **options) if site is None else passing(site, args, options)

    async def passing(site: Site, args: Any, options: Any) -> Any:
        crashes.pass_by(site, "before")
        result = await effect(*args, **options)
        crashes.returning(site)
        return result

    return wrapped


def _context(crashes: Crashes, effect: Callable[..., Any], method: str) -> Any:
    def wrapped(*args: Any, **options: Any) -> Any:
        site = _caller(method)
        return effect(*args, **options) if site is None else passing(site, args, options)

    @asynccontextmanager
    async def passing(site: Site, args: Any, options: Any) -> AsyncIterator[Any]:
        async with effect(*args, **options) as connection:
            yield connection
            crashes.pass_by(site, "before")
        crashes.returning(site)

    return wrapped


def _wrap_settling(crashes: Crashes, service: str) -> None:
    answer = messaging._answer

    async def answered(how: Callable[..., Awaitable[None]], **arguments: float) -> None:
        site = Site(service, f"settle:{how.__name__}")
        assert how.__name__ in SETTLING, how.__name__
        crashes.pass_by(site, "before")
        await answer(how, **arguments)
        crashes.returning(site)

    messaging._answer = answered  # type: ignore[assignment]


def _wrap_answers(crashes: Crashes, service: str) -> None:
    around = interceptors.CallInterceptor._around

    @asynccontextmanager
    async def passing(
        self: Any,
        name: str,
        rule: AccessRule,
        streams: bool,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[Any]:
        site = Site(service, "answer:" + name.removeprefix("/steno.v1.").replace("/", "."))
        async with around(self, name, rule, streams, context) as stream:
            crashes.pass_by(site, "before")
            yield stream
        crashes.returning(site)

    interceptors.CallInterceptor._around = passing  # type: ignore[method-assign]


def _wrap_calls(crashes: Crashes, service: str) -> None:
    intercept = client._Unary.intercept_unary_unary

    async def passing(
        self: Any,
        continuation: Callable[..., Any],
        details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        site = Site(service, f"call:{_text(details.method).rpartition('/')[2]}")
        crashes.pass_by(site, "before")
        call = await intercept(self, continuation, details, request)
        if await call.code() is grpc.StatusCode.OK:
            crashes.returning(site)
        return call

    client._Unary.intercept_unary_unary = passing  # type: ignore[method-assign]


def _text(method: str | bytes) -> str:
    return method.decode() if isinstance(method, bytes) else method


def main() -> None:
    """Runs the service of the environment."""
    module = os.environ["STENO_CRASH_MODULE"]
    folder = Path(os.environ["STENO_CRASH_FOLDER"])
    chance = float(os.environ["STENO_CRASH_CHANCE"])
    wrap(Crashes(folder, chance), os.environ["STENO_CRASH_SERVICE"])
    sys.argv[0] = module
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
