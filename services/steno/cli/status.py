"""`steno status`: whether the platform is ready."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial

from steno.cli.connection import SERVICES, Addresses, credentials
from steno.cli.failures import Exit
from steno.cli.rendering import print_json, print_table
from steno.local.health import Health, grpc_health, metrics_health

_EXIT = {
    Health.READY: Exit.DONE,
    Health.NOT_READY: Exit.FAILED,
    Health.UNREACHABLE: Exit.UNREACHABLE,
}


async def show(options: argparse.Namespace) -> int:
    """Prints how each process is: of a platform on this machine all of them, else the services.

    Exit code 0 when all are ready, 3 when one can't be reached, 1 when one is there but not ready.
    """
    addresses = Addresses.resolve(options, os.environ)
    over_tls = partial(grpc_health, tls=credentials(options, os.environ, addresses))
    asked: dict[str, tuple[str, Callable[[str], Awaitable[Health]]]] = {
        service: (addresses.of(service), over_tls) for service in SERVICES
    }
    if addresses.here is not None:
        asked |= {
            name: (address, grpc_health) for name, address in addresses.here.addresses.items()
        }
        asked |= {
            name: (address, metrics_health)
            for name, address in addresses.here.metrics.items()
            if name not in asked
        }
    healths = await asyncio.gather(*(health(address) for address, health in asked.values()))
    seen = [
        (name, address, health)
        for (name, (address, _)), health in zip(asked.items(), healths, strict=True)
    ]
    if options.json:
        print_json(
            {
                "ready": all(health is Health.READY for health in healths),
                "services": [
                    {"name": name, "address": address, "state": health.value}
                    for name, address, health in seen
                ],
            }
        )
    else:
        print_table(
            ("SERVICE", "ADDRESS", "STATE"),
            ((name, address, health.value) for name, address, health in seen),
        )
    return max(_EXIT[health] for health in healths)
