"""`steno version`."""

from __future__ import annotations

import argparse
import json

from steno import __version__


def show(options: argparse.Namespace) -> int:
    """Prints the version."""
    print(json.dumps({"version": __version__}) if options.json else f"steno {__version__}")
    return 0
