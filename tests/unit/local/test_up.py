"""How `steno up` ends."""

from __future__ import annotations

import signal

from steno.local.up import until_told_to_stop


def test_a_terminal_that_closes_does_not_stop_what_nohup_has_started() -> None:
    async def work() -> int:
        return int(signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert until_told_to_stop(work()) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
