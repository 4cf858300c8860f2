"""What is set aside comes again, later each time."""

from __future__ import annotations

import pytest

from steno.job.aside import LONGEST_PAUSE_SECONDS, Aside
from steno.platform.errors import Unavailable


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_row_that_fails_is_left_out_twice_as_long_each_time() -> None:
    clock = Clock()
    aside: Aside[int] = Aside("test", clock)
    pauses: list[float] = []
    for _ in range(12):
        with aside.tried(1):
            raise ValueError
        began = clock.now
        while aside.keys:
            clock.now += 1
        pauses.append(clock.now - began)

    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_a_row_that_went_well_is_as_new() -> None:
    aside: Aside[int] = Aside("test", Clock())
    with aside.tried(1):
        raise ValueError
    with aside.tried(1):
        pass

    assert not aside.keys


def test_a_server_that_is_away_is_told_and_the_row_comes_behind_others() -> None:
    aside: Aside[int] = Aside("test", Clock())

    with pytest.raises(Unavailable), aside.tried(1):
        raise Unavailable("away")

    assert aside.keys == [1]


def test_a_row_that_makes_a_server_seem_away_does_so_less_and_less() -> None:
    clock = Clock()
    aside: Aside[int] = Aside("test", clock)
    others_had_their_turn = 0
    for _ in range(20):
        if 1 in aside.keys:
            others_had_their_turn += 1
        else:
            with pytest.raises(Unavailable), aside.tried(1):
                raise Unavailable("away")
        clock.now += 3  # after a failure, a loop does not come back at once

    assert others_had_their_turn > 10


def test_what_has_not_failed_for_long_is_forgotten() -> None:
    clock = Clock()
    aside: Aside[int] = Aside("test", clock)
    for _ in range(3):
        with aside.tried(1):
            raise ValueError
    clock.now += 2 * LONGEST_PAUSE_SECONDS
    assert not aside.keys

    with aside.tried(1):
        raise ValueError
    clock.now += 1

    assert not aside.keys


def test_what_all_say_is_not_the_fault_of_one() -> None:
    aside: Aside[int] = Aside("test", Clock())

    with pytest.raises(Unavailable):
        aside.all_failed({1: Unavailable("away"), 2: Unavailable("away")}, beside_others=False)
    assert not aside.keys
    aside.all_failed({1: Unavailable("too large")}, beside_others=True)
    assert aside.keys == [1]
