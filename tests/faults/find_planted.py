"""`python -m faults.find_planted`: tries each planted bug until a promise tells of it.

It prints which one did, and how long it took; exit status 1 if a bug was not found.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from faults.planted import BUGS, Bug
from faults.system import FULL, SHORT_LEASES
from faults.trial import Trial

SECONDS = 40.0
"""How long one try harms the platform."""
TRIES = 4
"""Of a bug, each with a seed of its own, before it counts as not found."""


async def find(bug: Bug, seed: int) -> tuple[str, float]:
    """Tries until a promise tells of the bug; returns which, or "", and the minutes."""
    shape = replace(FULL, settings=SHORT_LEASES, planted=bug.name)
    begun = time.monotonic()
    for number in range(TRIES):
        trial = Trial(seed + number, SECONDS, shape, bug.faults, halts=bug.halts)
        outcome = await trial.run()
        if outcome.found:
            return outcome.found[0].promise, (time.monotonic() - begun) / 60
    return "", (time.monotonic() - begun) / 60


def find_all(bugs: Sequence[Bug], seed: int) -> None:
    """Prints a table as Markdown."""
    print("| bug | found by | minutes |\n| --- | --- | --- |", flush=True)
    missed = 0
    for bug in bugs:
        promise, minutes = asyncio.run(find(bug, seed))
        missed += not promise
        print(f"| {bug.name} | {promise or 'NOT FOUND'} | {minutes:.1f} |", flush=True)
    print(f"\n{len(bugs) - missed} of {len(bugs)} were found")
    sys.exit(bool(missed))


def main() -> None:
    """All, or those that are named."""
    parser = argparse.ArgumentParser(prog="python -m faults.find_planted", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("bug", nargs="*", help="names, or parts of them; none: all")
    arguments = parser.parse_args()
    wanted = [b for b in BUGS if not arguments.bug or any(n in b.name for n in arguments.bug)]
    try:
        find_all(wanted, arguments.seed)
    except KeyboardInterrupt:
        sys.exit("interrupted; everything that was started has ended")


if __name__ == "__main__":
    main()
