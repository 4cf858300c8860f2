"""Leases do not expire by an outage."""

from __future__ import annotations

from collections.abc import Iterable

from steno.platform.outage import OutageGuard

LEASE, SWEEP = 20.0, 1.0


class Polls:
    """Polls of the leases, one after each sweep, on a clock that the test moves."""

    def __init__(self, lease: float = LEASE, sweep: float = SWEEP) -> None:
        self.time = 1000.0
        self._sweep = sweep
        self.guard = OutageGuard(lease, sweep, lambda: self.time)

    def poll(self, times: int) -> Iterable[bool]:
        """Whether leases may expire, at each poll."""
        for _ in range(times):
            yield self.guard.answered()
            self.time += self._sweep


def test_leases_expire_after_a_whole_one_in_which_workers_could_renew() -> None:
    polls = list(Polls().poll(60))

    assert polls == [False] * 20 + [True] * 40


def test_the_time_starts_anew_when_postgres_was_away() -> None:
    polls = Polls()
    assert [*polls.poll(30)][-1]

    polls.guard.interrupted()

    assert [*polls.poll(60)] == [False] * 20 + [True] * 40


def test_the_time_starts_anew_when_the_process_stood_still() -> None:
    polls = Polls()
    assert [*polls.poll(30)][-1]

    polls.time += LEASE / 2 + SWEEP

    assert [*polls.poll(60)] == [False] * 20 + [True] * 40


def test_leases_that_are_shorter_than_a_sweep_run_out_too() -> None:
    assert [*Polls(lease=0.1, sweep=1.0).poll(3)] == [False, True, True]
