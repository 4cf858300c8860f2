"""When a server wishes to be asked again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from steno.transcription.remote import LONGEST_RETRY_AFTER_SECONDS, _retry_after


@pytest.mark.parametrize(
    ("wish", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("soon", 0.0),
        ("", 0.0),
        ("86400", LONGEST_RETRY_AFTER_SECONDS),
        ("nan", 0.0),
    ],
)
def test_a_wish_is_honoured_within_reason(wish: str, seconds: float) -> None:
    assert _retry_after({"retry-after": wish}) == seconds


def test_a_wish_may_be_a_date() -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)

    assert 55 < _retry_after({"retry-after": then}) <= 60
    assert _retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert _retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 -0000"}) == 0.0
