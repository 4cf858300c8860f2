"""Ports on the loopback address."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

HOST = "127.0.0.1"

# Below the ports that outgoing connections get, so that a server which was stopped or killed
# finds its port free when it comes back.
_RANGE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Returns a port that nobody listens on.

    Chosen at random: two processes that look at the same moment will hardly get the same one.
    """
    while not is_free(port := random.choice(_RANGE)):
        pass
    return port


def choose_ports(memory: Path, names: Iterable[str], given: Mapping[str, int]) -> dict[str, int]:
    """Returns a port for each name and remembers them in a file.

    In this order: the given one, free or not; the remembered one if it is free; a free one.
    """
    remembered: dict[str, int] = json.loads(memory.read_text()) if memory.exists() else {}
    chosen = dict(given)
    for name in names:
        port = chosen.get(name) or remembered.get(name) or free_port()
        while name not in given and (port in chosen.values() or not is_free(port)):
            port = free_port()
        chosen[name] = port
    memory.write_text(json.dumps(remembered | chosen, indent=2))
    return chosen
