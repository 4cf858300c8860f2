"""`steno status`: whether the platform is ready."""

from __future__ import annotations

import argparse
import asyncio
import os

from steno.cli.connection import SERVICES, Addresses
from steno.cli.failures import Exit
from steno.cli.rendering import print_json, print_table
from steno.local.health import Health, grpc_health

_EXIT = {
    Health.READY: Exit.DONE,
    Health.NOT_READY: Exit.FAILED,
    Health.UNREACHABLE: Exit.UNREACHABLE,
}


async def show(options: argparse.Namespace) -> int:
    """Prints how each service is.

    Exit code 0 when all are ready, 3 when one can't be reached, 1 when one is there but not ready.
    """
    addresses = Addresses.resolve(options, os.environ)
    healths = await asyncio.gather(*(grpc_health(addresses.of(s)) for s in SERVICES))
    if options.json:
        print_json(
            {
                "ready": all(health is Health.READY for health in healths),
                "services": [
                    {"name": name, "address": addresses.of(name), "state": health.value}
                    for name, health in zip(SERVICES, healths, strict=True)
                ],
            }
        )
    else:
        print_table(
            ("SERVICE", "ADDRESS", "STATE"),
            (
                (name, addresses.of(name), health.value)
                for name, health in zip(SERVICES, healths, strict=True)
            ),
        )
    return max(_EXIT[health] for health in healths)
