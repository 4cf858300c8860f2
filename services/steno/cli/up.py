"""`steno up`: the whole platform on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from steno.cli.failures import CliError, Exit
from steno.local.data_dir import default_folder
from steno.models import DEFAULT


def up(options: argparse.Namespace) -> int:
    """Runs it until Ctrl-C or SIGTERM; returns the exit code."""
    from steno.local.supervisor import split_model
    from steno.local.up import up as run

    models: list[str] = options.models or [DEFAULT]
    names = [split_model(model)[0] for model in models]
    for name in names:
        if not name or "," in name or names.count(name) > 1:
            raise CliError(
                f"--model {name!r}: expected one name for each --model, and each name once",
                Exit.USAGE,
            )
    return run(
        Path(options.data_dir or default_folder()),
        models=models,
        workers=options.workers,
        port_base=options.port_base,
    )
