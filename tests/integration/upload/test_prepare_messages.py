"""The messages that wake a preparation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import nats
import pytest
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StreamConfig

from steno.platform.database import Pool
from steno.platform.messaging import PREPARE, Messaging, connect
from steno.platform.settings import NatsSettings
from steno.upload.domain import NewUpload
from steno.upload.events import PREPARE_SUBJECT
from steno.upload.reconcile import Reminder, reconcile
from steno.upload.store import PreparationStore, Store

REPEATS_SECONDS = 0.1
"""How long the queue drops repeats of a message here; two minutes elsewhere."""


@pytest.fixture
async def messaging(environment: dict[str, str]) -> AsyncIterator[Messaging]:
    async with connect(NatsSettings(), "test") as messaging:
        yield messaging


@pytest.fixture
async def jetstream(environment: dict[str, str]) -> AsyncIterator[JetStreamContext]:
    """NATS, with a work queue that soon forgets which messages it has had."""
    connection = await nats.connect(environment["STENO_NATS_URL"])
    jetstream = connection.jetstream()
    await make_queue(jetstream)
    yield jetstream
    await connection.close()


async def make_queue(jetstream: JetStreamContext) -> None:
    await jetstream.add_stream(
        StreamConfig(
            name=PREPARE,
            subjects=[PREPARE_SUBJECT],
            retention=RetentionPolicy.WORK_QUEUE,
            duplicate_window=REPEATS_SECONDS,
        )
    )


async def queued(jetstream: JetStreamContext) -> int:
    return (await jetstream.stream_info(PREPARE)).state.messages


async def add_audio(pool: Pool) -> None:
    await Store(pool).add_audio(
        NewUpload("a", "", "", None),
        object_key=f"recordings/{uuid4()}",
        size_bytes=1,
        sha256=64 * "0",
        rejection=None,
    )


async def test_audio_that_waits_for_long_has_one_message(
    pool: Pool, messaging: Messaging, jetstream: JetStreamContext
) -> None:
    for _ in range(3):
        await add_audio(pool)
    reminder = Reminder(messaging)

    for _ in range(3):
        await reconcile(PreparationStore(pool), reminder)
        await asyncio.sleep(3 * REPEATS_SECONDS)

    assert await queued(jetstream) == 3


async def test_audio_that_waits_for_long_has_a_message_again_after_it_was_lost(
    pool: Pool, messaging: Messaging, jetstream: JetStreamContext
) -> None:
    await add_audio(pool)
    reminder = Reminder(messaging)
    await reconcile(PreparationStore(pool), reminder)
    await jetstream.delete_stream(PREPARE)
    await make_queue(jetstream)

    await reconcile(PreparationStore(pool), reminder)

    assert await queued(jetstream) == 1
