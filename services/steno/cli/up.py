"""`steno up`: the whole platform on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from steno.local.data_dir import default_folder
from steno.models import DEFAULT


def up(options: argparse.Namespace) -> int:
    """Runs it until Ctrl-C or SIGTERM; returns the exit code."""
    from steno.local.up import up as run

    return run(
        Path(options.data_dir or default_folder()),
        models=options.models or [DEFAULT],
        workers=options.workers,
        port_base=options.port_base,
    )
