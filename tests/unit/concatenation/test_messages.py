"""What may be asked for."""

from __future__ import annotations

import pytest

from steno.audio.decoder.decode import MIN_HERTZ
from steno.concatenation.domain import LEAST_HERTZ
from steno.concatenation.messages import parse_new_session
from steno.platform.errors import InvalidArgument
from steno.v1 import concatenation_pb2 as pb


def asked(hertz: int) -> pb.CreateSessionRequest:
    config = pb.SessionConfig(encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=hertz)
    return pb.CreateSessionRequest(config=config)


def test_nothing_is_recorded_at_a_rate_at_which_no_audio_can_be_made_of_it() -> None:
    assert LEAST_HERTZ >= MIN_HERTZ
    assert parse_new_session(asked(LEAST_HERTZ)).config.sample_rate_hertz == LEAST_HERTZ
    with pytest.raises(InvalidArgument, match=r"sample_rate_hertz: must be 4000 or more"):
        parse_new_session(asked(LEAST_HERTZ - 1))
