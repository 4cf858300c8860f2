"""Ports on the loopback address."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain, cycle, islice
from pathlib import Path

HOST = "127.0.0.1"

# Below the ports that outgoing connections get, so that a server which was stopped or killed
# finds its port free when it comes back.
_RANGE = range(20_000, 32_000)
_BLOCK = 240
"""Ports that one process chooses from."""

_chosen: dict[Path, frozenset[int]] = {}
"""By the file that remembers them."""


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

    Two processes that look at the same moment do not get the same one, and neither does one that
    looks twice before it listens. What this process has chosen for a server stays that server's,
    though it be stopped or killed, as long as the file is there that remembers it.
    """
    kept = {port for memory, ports in _chosen.items() if memory.exists() for port in ports}
    ports = _own_ports()
    for port in islice(ports, _BLOCK):
        if port not in kept and is_free(port):
            return port
    return next(port for port in ports if is_free(port))


@cache
def _own_ports() -> Iterator[int]:
    """Ports of this process, in turn, for ever.

    It holds the first port of their block, bound, as long as it lives.
    """
    for first in random.sample(_RANGE[::_BLOCK], len(_RANGE[::_BLOCK])):
        holder = socket.socket()
        try:
            holder.bind((HOST, first))
        except OSError:
            holder.close()
            continue
        holder.detach()
        return cycle(range(first + 1, first + _BLOCK))
    return cycle(random.sample(_RANGE, len(_RANGE)))  # as many others run as there are blocks


class PortTaken(Exception):
    """A port that was asked for by number is in use."""


def choose_ports(
    memory: Path,
    names: Iterable[str],
    *,
    asked: Mapping[str, int] | None = None,
    usual: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Returns a port for each name and remembers them in a file.

    In this order: the one asked for; the usual one if it is free; the remembered one if it is
    free; any free one.

    Raises PortTaken if a port that was asked for is in use.
    """
    remembered: dict[str, int] = json.loads(memory.read_text()) if memory.exists() else {}
    chosen = dict(asked or {})
    for name, port in chosen.items():
        if not is_free(port):
            raise PortTaken(
                f"port {port}, for {name}, is in use; "
                "choose another --port-base, or 0 for free ports"
            )
    for name in names:
        if name in chosen:
            continue
        wishes = ((usual or {}).get(name), remembered.get(name))
        good = (p for p in chain(wishes, iter(free_port, None)) if p and is_free(p))
        chosen[name] = next(p for p in good if p not in chosen.values())
    kept = remembered | chosen
    _chosen[memory] = frozenset(kept.values())
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(json.dumps(kept, indent=2))
    return chosen
