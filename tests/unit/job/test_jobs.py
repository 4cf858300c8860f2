"""What callers can do with jobs, beside what a running service shows."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from steno.job.domain import Audio, AudioNotFound, NewJob
from steno.job.jobs import Jobs, Limits
from steno.job.rows import Load
from steno.transcript import Options


class Nothing:
    """A store without jobs."""

    async def load(self, tenant: str) -> tuple[Load, Load]:
        return Load(0, 0), Load(0, 0)


class Silence:
    """Does not answer, but for one audio that it does not have."""

    def __init__(self, missing: UUID) -> None:
        self.missing = missing
        self.asking = 0

    async def fetch(self, audio_id: UUID, start_index: int = 0) -> Audio:
        if audio_id == self.missing:
            await asyncio.sleep(0)  # the others are asked for meanwhile
            raise AudioNotFound(audio_id)
        self.asking += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.asking -= 1
        raise AssertionError


async def test_nobody_is_asked_any_more_once_jobs_can_not_be_made() -> None:
    audio: Any = Silence(uuid4())
    store: Any = Nothing()
    limits = Limits(100, 100)
    jobs = Jobs(store, audio, ["builtin"], limits, limits, timedelta(days=30))

    with pytest.raises(AudioNotFound):
        await jobs.create_all(
            [(NewJob(each, Options("builtin")), None) for each in (audio.missing, uuid4(), uuid4())]
        )

    assert audio.asking == 0
