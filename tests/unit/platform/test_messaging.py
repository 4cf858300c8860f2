"""How models become subjects, and what lasts no longer than its message."""

import asyncio
from contextlib import suppress
from typing import cast

import pytest
from nats.aio.msg import Msg

from steno.platform import messaging
from steno.platform.messaging import Delivery, model_token, tasks_subject


def test_a_plain_model_name_is_its_own_token() -> None:
    assert model_token("large-v3") == "large-v3"


def test_other_characters_never_reach_a_subject() -> None:
    token = model_token("/models/a b.c>*")

    assert not set(token) & set("/ .>*")


def test_two_models_never_share_a_token() -> None:
    assert model_token("a/b") != model_token("a.b")


def test_the_subject_holds_model_and_priority() -> None:
    assert tasks_subject("builtin", "*") == "steno.tasks.builtin.*"


async def test_nobody_keeps_a_message_alive_after_its_work_though_a_cancellation_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(messaging, "ACK_WAIT_SECONDS", 0.003)
    monkeypatch.setattr("steno.platform.ending.CANCEL_AGAIN_SECONDS", 0.01)
    sending = asyncio.Event()

    class Sent:
        async def in_progress(self) -> None:
            if not sending.is_set():
                sending.set()
                with suppress(asyncio.CancelledError):  # as NATS's client does while it sends
                    await asyncio.Event().wait()

    before = asyncio.all_tasks()
    async with messaging.kept_alive(Delivery(None, cast("Msg", Sent()))):
        await sending.wait()

    assert asyncio.all_tasks() <= before
