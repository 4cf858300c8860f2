"""What people type, and what comes of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from running_platform import RunningPlatform

STENO = str(Path(sys.executable).with_name("steno"))


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed


class Terminal:
    """Runs commands against the platform, as `STENO_HOME` names it."""

    def __init__(self, platform: RunningPlatform) -> None:
        self.home = platform.platform.folder

    async def start(self, *arguments: object, **environment: str) -> Process:
        return await asyncio.create_subprocess_exec(
            STENO,
            *map(str, arguments),
            env={**os.environ, "STENO_HOME": str(self.home), **environment},
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )

    async def run(self, *arguments: object, stdin: bytes = b"", **environment: str) -> Ran:
        process = await self.start(*arguments, **environment)
        out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())
