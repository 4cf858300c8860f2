"""`python -m corpus list` tells the bad inputs; `python -m corpus write DIR` writes the files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from corpus import CALLS, FILES


def main() -> None:
    """Lists or writes."""
    parser = argparse.ArgumentParser(prog="corpus", description=sys.modules["corpus"].__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="tell each input and its answer")
    write = commands.add_parser("write", help="write each file, named by its number")
    write.add_argument("folder", type=Path)
    arguments = parser.parse_args()

    for number, file in enumerate(FILES):
        print(f"{number:03} {file.name}: {file.answer}")
        if arguments.command == "write":
            arguments.folder.mkdir(parents=True, exist_ok=True)
            (arguments.folder / f"{number:03}").write_bytes(file.read())
    if arguments.command == "list":
        for call in CALLS:
            print(f"{call.name}: {call.code.name} {call.reason} {call.field}".rstrip())


if __name__ == "__main__":
    main()
