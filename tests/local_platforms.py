"""Platforms on this machine: what runs on their folders, and stand-ins for their services."""

from __future__ import annotations

import os
from pathlib import Path

from steno.local.supervisor import Service


def stand_in(name: str = "stand-in", **environment: str) -> Service:
    """A service for tests of what is around it."""
    path = {"PYTHONPATH": str(Path(__file__).parent / "integration" / "local")}
    return Service(name, "stand_in", serves=False, environment=path | environment)


def processes_of(folder: Path) -> dict[int, str]:
    """Everything that runs on a platform's folder, by process id: servers, services, and theirs.

    Found by the folder in their command line or as their working directory, or by a server's
    secret in their environment.
    """
    marks = [str(folder).encode()]
    if (folder / "secrets.json").exists():
        marks += [
            word.encode()
            for word in (folder / "secrets.json").read_text().split('"')
            if len(word) >= 32
        ]
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            command = (process / "cmdline").read_bytes()
            known = command + (process / "environ").read_bytes()
            known += os.fsencode((process / "cwd").readlink())
        except OSError:
            continue  # it has ended, or is the kernel's
        if any(mark in known for mark in marks):
            found[int(process.name)] = command.replace(b"\0", b" ").decode()
    return found
