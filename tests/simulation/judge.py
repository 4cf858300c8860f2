"""Runs schedules and says which promises they broke."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from simulation.evidence import Broken, broken_promises
from simulation.job_schedule import JobSchedule
from simulation.loop import Stuck
from simulation.schedule import Schedule
from simulation.session_schedule import SessionSchedule


@dataclass(frozen=True)
class Kind:
    """What is simulated.

    Attributes:
        name: as the command line has it.
        schedule: makes one of a seed.
        schedules: of all mixes together, that the tests run.
        parts: tests that share those of one mix.
    """

    name: str
    schedule: type[Schedule]
    schedules: int
    parts: int

    def seeds_of(self, mix: str, part: int) -> range:
        """The seeds of a mix that one of its tests runs."""
        mixes = self.schedule.mixes
        each = self.schedules // len(mixes) // self.parts
        first = mixes.index(mix) + part * each * len(mixes)
        return range(first, first + each * len(mixes), len(mixes))

    def judged(self, seed: int, trace: Callable[[str], None] | None = None) -> list[Broken]:
        """Lets a schedule happen; returns the promises that do not hold then."""
        try:
            evidence = self.schedule(seed, trace).run()
        except Stuck as stuck:
            return [Broken("everything_has_an_end", str(stuck))]
        return broken_promises(self.schedule.promises, evidence)

    def traced(self, seed: int) -> list[str]:
        """All that happens in a schedule."""
        lines: list[str] = []
        self.schedule(seed, lines.append).run()
        return lines

    def command(self, seed: int) -> str:
        """What runs a schedule again, and tells all that happens in it."""
        return (
            f"PYTHONPATH=tests .venv/bin/python -m simulation --of {self.name} --seed {seed}"
            " --trace"
        )

    def check(self, seeds: Iterable[int]) -> None:
        """Raises AssertionError, with the command that shows more, if one breaks a promise."""
        for seed in seeds:
            broken = self.judged(seed)
            told = "\n".join(map(str, broken))
            assert not broken, f"seed {seed}: {told}\nagain: {self.command(seed)}"


JOBS = Kind("jobs", JobSchedule, schedules=9_600, parts=5)

SESSIONS = Kind("sessions", SessionSchedule, schedules=400, parts=2)

KINDS = {kind.name: kind for kind in (JOBS, SESSIONS)}
