"""Fetches a model before its workers start: `python -m steno.transcription.fetch large-v3 /models`.

Workers with STENO_MODEL_DIR set to that folder then start without network.
"""

from __future__ import annotations

import argparse
import sys

from steno.transcription import models
from steno.transcription.domain import ModelNotFound


def main() -> None:
    """Fetches what is not there yet, and prints the folder of the model's files."""
    parser = argparse.ArgumentParser(
        prog="python -m steno.transcription.fetch", description=__doc__
    )
    parser.add_argument("model", help="as STENO_MODEL names it")
    parser.add_argument("folder", help="as STENO_MODEL_DIR names it")
    arguments = parser.parse_args()
    try:
        print(models.locate(arguments.model, arguments.folder))
    except ModelNotFound as error:
        sys.exit(f"fetch: {error}")


if __name__ == "__main__":
    main()
