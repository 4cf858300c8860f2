"""`make bench`, or `make bench ROWS=1,3 ROUNDS=3`."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform as machine
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from bench import live, platform_alone, scaling, transcribing
from bench.results import Result, known, table, write

ROWS: dict[int, Callable[[Path, int], Awaitable[list[Result]]]] = {
    1: transcribing.files,
    2: transcribing.clips,
    3: scaling.workers,
    4: platform_alone.jobs,
    5: platform_alone.watching,
    6: platform_alone.uploading,
    7: scaling.killing,
    8: platform_alone.memory,
    9: live.bytes_written,
    10: live.appending,
    11: live.listening,
    12: live.sessions,
    13: live.lasting,
    14: live.closing,
}


async def run(rows: list[int], rounds: int) -> list[Result]:
    """Measures one row after the other; within each, what is compared takes turns."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="steno-bench-") as folder:
        for row in rows:
            began = time.monotonic()
            found = await ROWS[row](Path(folder), rounds)
            results += found
            print(f"row {row}, {time.monotonic() - began:.0f} s")
            print(table(found), flush=True)
    return results


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", default=",".join(map(str, ROWS)), help="such as 1,3")
    parser.add_argument("--rounds", type=int, default=3, help="of each row")
    parser.add_argument("--out", type=Path, default=Path("bench"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = [int(row) for row in options.rows.split(",")]
    busy = os.getloadavg()[0]
    results = [replace(each, load=busy) for each in asyncio.run(run(rows, options.rounds))]
    # Rows that were not measured now stay as they were.
    others = [each for each in known(options.out) if each.row not in rows]
    about = (
        f"On {os.cpu_count()} cores ({machine.machine()}), Python {machine.python_version()}; "
        "medians of so many rounds, and the load average before the run that a row was measured "
        "in. The model is Whisper tiny.en in int8. Where the time goes in rows that are not "
        "reached: [profiles.md](profiles.md)."
    )
    write(sorted(others + results, key=lambda each: each.row), options.out, about)
    print(table(results))


if __name__ == "__main__":
    main()
