"""Runs schedules: `python -m simulation --schedules 100000`.

One again: `--of jobs --seed 123 --trace`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from simulation.judge import KINDS, Kind


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--of", choices=[*KINDS], help="one of the two services; else of each")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--schedules", type=int, default=1, help="how many, from that seed on")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    wanted = parser.parse_args(arguments)
    kinds = [KINDS[wanted.of]] if wanted.of else [*KINDS.values()]
    seeds = range(wanted.seed, wanted.seed + wanted.schedules)
    failed = [_run(kind, seeds, trace=wanted.trace) for kind in kinds]
    return min(sum(failed), 1)


def _run(kind: Kind, seeds: range, *, trace: bool) -> int:
    """Returns how many schedules broke a promise."""
    began = time.monotonic()
    failed = 0
    for seed in seeds:
        broken = kind.judged(seed, print if trace else None)
        for each in broken:
            print(f"{kind.name}, seed {seed}: {each}")
        if broken:
            failed += 1
            print(f"  again: {kind.command(seed)}", flush=True)
    seconds = time.monotonic() - began
    print(
        f"{kind.name}: {len(seeds)} schedules from seed {seeds.start} on, {failed} with broken"
        f" promises, {len(seeds) / seconds:.0f} a second",
        flush=True,
    )
    return failed


if __name__ == "__main__":
    sys.exit(main())
