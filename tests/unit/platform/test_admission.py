"""A server that is behind refuses who comes; one that is only busy does not."""

from __future__ import annotations

from contextlib import ExitStack

from steno.platform.admission import FEW, Inside


def test_few_calls_are_let_in_however_long_they_take() -> None:
    inside = Inside()
    with ExitStack() as calls:
        for _ in range(FEW - 1):
            calls.enter_context(inside.call(0, seconds_left=1))

        assert not inside.is_behind(now=100)


def test_a_burst_is_let_in_and_only_who_comes_when_half_of_it_is_late_is_not() -> None:
    inside = Inside()
    with ExitStack() as calls:
        for _ in range(1000):
            assert not inside.is_behind(now=0)
            calls.enter_context(inside.call(0, seconds_left=10))

        assert not inside.is_behind(now=0.9)
        assert inside.is_behind(now=1.1)


def test_calls_that_have_just_come_show_that_those_before_them_were_done() -> None:
    inside = Inside()
    with ExitStack() as calls:
        for _ in range(FEW):
            calls.enter_context(inside.call(0, seconds_left=10))
        for _ in range(FEW):
            calls.enter_context(inside.call(4, seconds_left=10))

        assert not inside.is_behind(now=4.5)


def test_a_caller_who_does_not_say_how_long_has_a_minute() -> None:
    inside = Inside()
    with ExitStack() as calls:
        for _ in range(FEW):
            calls.enter_context(inside.call(0, seconds_left=None))

        assert not inside.is_behind(now=5)
        assert inside.is_behind(now=7)


def test_once_the_late_are_done_who_comes_is_let_in() -> None:
    inside = Inside()
    with ExitStack() as calls:
        for _ in range(FEW):
            calls.enter_context(inside.call(0, seconds_left=10))
        assert inside.is_behind(now=9)

    assert not inside.is_behind(now=9)
