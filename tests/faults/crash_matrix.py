"""`python -m faults.crash_matrix --minutes 30`: kills processes at each place of each effect.

The platform runs under load, and each place kills a process once. New systems are started until
all places have killed or the time is over. Exit status 1 if a promise was broken. What is printed
in the end is the matrix: each effect, and at which of its places a process has died.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import signal
import sys
import tempfile
import time
from pathlib import Path

from faults.crash_points import PLACES, Place, Site, table
from faults.crashing import Crashes
from faults.promises import lines
from faults.system import SMALL
from faults.trial import Outcome, Trial
from steno.local import supervisor

TRIAL_SECONDS = 180.0
EXPIRING = {
    "STENO_UPLOAD_URL_SECONDS": "20",
    "STENO_UPLOAD_EXPIRY_SECONDS": "40",
    "STENO_UPLOAD_SWEEP_SECONDS": "2",
}
"""What clients give up expires within a trial."""
FAILING = 0.02
"""Share of slices that are tried again."""


def main() -> None:
    """Runs the trials, and prints the matrix."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(prog="python -m faults.crash_matrix", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="of load, all trials together")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, help="folder for histories, as JSON lines, and logs")
    arguments = parser.parse_args()
    # Its pauses are for a crash that comes again; here each is another one.
    supervisor._BACKOFF_SECONDS = (0.1,) * 6
    with tempfile.TemporaryDirectory() as folder:
        try:
            outcomes = asyncio.run(_run(arguments, Path(folder)))
        except KeyboardInterrupt:
            sys.exit("interrupted; everything that was started has ended")
        dead_at = Crashes(Path(folder)).dead_at()
    print(matrix(table(), dead_at))
    for outcome in outcomes:
        print(lines(outcome.found))
    sys.exit(any(outcome.found for outcome in outcomes))


async def _run(arguments: argparse.Namespace, folder: Path) -> list[Outcome]:
    outcomes: list[Outcome] = []
    places = len(table()) * len(PLACES)
    left, seed = arguments.minutes * 60, arguments.seed
    while left > 1 and len(Crashes(folder).dead_at()) < places:
        seconds = min(left, TRIAL_SECONDS)
        settings = {**SMALL.settings, **EXPIRING}
        shape = dataclasses.replace(SMALL, settings=settings, failing=FAILING, crashes=folder)
        trial = Trial(seed, seconds, shape, (), 4, 2, arguments.keep)
        outcomes.append(await trial.run())
        left, seed = left - seconds, seed + 1
        dead = len(Crashes(folder).dead_at())
        print(f"died at {dead} of {places} places; promises broken: {len(outcomes[-1].found)}")
        sys.stdout.flush()
    return outcomes


def matrix(sites: list[Site], dead_at: set[tuple[Site, Place]]) -> str:
    """As Markdown: a row for each effect, a column for each place."""
    rows = [
        f"| {site.process} | `{site.name}` | "
        + " | ".join("died" if (site, place) in dead_at else "" for place in PLACES)
        + " |"
        for site in sites
    ]
    places = len(sites) * len(PLACES)
    return "\n".join(
        [
            f"{len(dead_at)} of {places} places",
            "",
            f"| service | effect | {' | '.join(PLACES)} |",
            "| --- | --- | --- | --- | --- |",
            *rows,
        ]
    )


if __name__ == "__main__":
    main()
