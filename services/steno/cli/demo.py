"""`steno demo`: the whole platform in a temporary folder, for one recording."""

from __future__ import annotations

import argparse
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import steno
from steno.cli.failures import CliError, Exit

RECORDING = Path("examples/audio/demo.opus")


def run(options: argparse.Namespace) -> int:
    """Starts everything, transcribes a recording, prints its transcript, and stops everything."""
    from steno.local.up import until_told_to_stop

    return until_told_to_stop(_run(options, find_recording()))


async def _run(options: argparse.Namespace, recording: Path) -> int:
    from steno.cli.__main__ import parser
    from steno.cli.connection import PATIENCE_SECONDS, Addresses, Services
    from steno.cli.transcribe import transcribe
    from steno.local.supervisor import Platform, services
    from steno.local.up import say

    request = parser().parse_args(["transcribe", str(recording)])
    request.json = options.json
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="steno-demo-", ignore_cleanup_errors=True)
        )
        platform = Platform(Path(folder), services("builtin", 1), port_base=0, say=say)
        await stack.enter_async_context(platform)
        say(f"transcribing {recording.name}")
        addresses = Addresses.running(platform.addresses, folder)
        own = Services(addresses, PATIENCE_SECONDS, stack)
        code = await transcribe(own, request, lasting=False)
        say("stopping")
        return code


def find_recording() -> Path:
    """The demo's recording. Raises CliError where it is not: outside of the repository."""
    for root in (Path.cwd(), *Path(steno.__file__).resolve().parents):
        if (root / RECORDING).is_file():
            return root / RECORDING
    raise CliError(
        f"{RECORDING} is not here; it comes with the repository, not with the package",
        Exit.USAGE,
        hint="elsewhere: steno up, then steno transcribe FILE",
    )
