"""Whose silence counts."""

from __future__ import annotations

from collections.abc import Iterable

from steno.platform.hearing import Hearing

LEASE, SWEEP = 20.0, 1.0


class Looks:
    """Looks at the leases, one after each sweep, on a clock that the test moves."""

    def __init__(self, lease: float = LEASE, sweep: float = SWEEP) -> None:
        self.time = 1000.0
        self._sweep = sweep
        self.hearing = Hearing(lease, sweep, lambda: self.time)

    def look(self, times: int) -> Iterable[bool]:
        """Whether silence counts, at each look."""
        for _ in range(times):
            yield self.hearing.answered()
            self.time += self._sweep


def test_silence_counts_after_a_whole_lease_in_which_workers_could_be_heard() -> None:
    looks = list(Looks().look(60))

    assert looks == [False] * 20 + [True] * 40


def test_the_time_starts_anew_when_postgres_was_away() -> None:
    looks = Looks()
    assert [*looks.look(30)][-1]

    looks.hearing.interrupted()

    assert [*looks.look(60)] == [False] * 20 + [True] * 40


def test_the_time_starts_anew_when_the_process_stood_still() -> None:
    looks = Looks()
    assert [*looks.look(30)][-1]

    looks.time += LEASE / 2 + SWEEP

    assert [*looks.look(60)] == [False] * 20 + [True] * 40


def test_leases_that_are_shorter_than_a_sweep_run_out_too() -> None:
    assert [*Looks(lease=0.1, sweep=1.0).look(3)] == [False, True, True]
