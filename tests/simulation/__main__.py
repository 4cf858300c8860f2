"""Runs schedules: `python -m simulation --schedules 100000`; one again: `--seed 123 --trace`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from simulation.job_schedule import Schedule
from simulation.judge import command, judged


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--schedules", type=int, default=1, help="how many, from that seed on")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    wanted = parser.parse_args(arguments)
    began = time.monotonic()
    failed = 0
    for seed in range(wanted.seed, wanted.seed + wanted.schedules):
        broken = judged(Schedule(seed, print if wanted.trace else None))
        for each in broken:
            print(f"seed {seed}: {each}")
        if broken:
            failed += 1
            print(f"  again: {command(seed)}", flush=True)
    seconds = time.monotonic() - began
    print(
        f"{wanted.schedules} schedules from seed {wanted.seed} on, {failed} with broken promises,"
        f" {wanted.schedules / seconds:.0f} a second"
    )
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
