"""What a person gives: names of files, and files whose next byte may never come, such as stdin."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

T = TypeVar("T")

_reading = threading.Event()


def sendable(name: str) -> str:
    """A file's name as a message can hold it: what is not UTF-8 becomes U+FFFD."""
    return os.fsencode(name).decode(errors="replace")


async def in_reader(work: Callable[..., T], *arguments: object) -> T:
    """Runs what waits for input in a thread for that alone; the event loop ends without it."""

    def read() -> T:
        _reading.set()
        try:
            return work(*arguments)
        finally:
            _reading.clear()

    return await asyncio.get_running_loop().run_in_executor(_reader(), read)


def is_reading() -> bool:
    """Whether input is waited for now: the interpreter's end would wait for it, too."""
    return _reading.is_set()


@cache
def _reader() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "reader")
