"""What the environment may say of engines."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from steno.transcription.settings import Settings

SERVERS = {
    "nats_url": "nats://localhost",
    "s3_endpoint": "http://localhost",
    "s3_access_key": "a",
    "s3_secret_key": "b",
}
REMOTE = {"engine": "remote", "remote_url": "http://speech:8000/v1/", "remote_model": "whisper-1"}


def settings(**given: Any) -> Settings:
    return Settings(**{**SERVERS, **given})


def test_the_engine_is_whisper_unless_another_is_named() -> None:
    assert settings().engine == "whisper"


def test_a_remote_engine_has_a_url_and_a_model() -> None:
    found = settings(**REMOTE, remote_api_key="sk-secret")

    assert found.remote_url == "http://speech:8000/v1"
    assert "sk-secret" not in repr(found)


@pytest.mark.parametrize(
    ("wrong", "variable"),
    [
        ({"remote_url": ""}, "remote_url"),
        ({"remote_model": ""}, "remote_model"),
        ({"remote_url": "speech:8000/v1"}, "remote_url"),
        ({"remote_concurrency": 0}, "remote_concurrency"),
        ({"engine": "parakeet"}, "engine"),
        ({"remote_url": "http://ada:secret@speech:8000/v1"}, "remote_url"),
        ({"remote_url": "http://secret@speech:8000/v1"}, "remote_url"),
        ({"remote_api_key": "sk-secret sk-secret"}, "remote_api_key"),
        ({"remote_api_key": "sk-\x00secret"}, "remote_api_key"),
        ({"remote_api_key": "sk-\nsecret"}, "remote_api_key"),
        ({"remote_api_key": "sk-secrét"}, "remote_api_key"),
    ],
)
def test_a_remote_engine_that_can_not_work_is_refused_by_the_name_of_its_setting(
    wrong: dict[str, Any], variable: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(**(REMOTE | wrong))

    assert [error["loc"] for error in caught.value.errors()] == [(variable,)]
    assert "secr" not in caught.value.errors()[0]["msg"].replace("SecretStr", "")


def test_a_key_may_end_with_a_new_line_as_files_do() -> None:
    found = settings(**REMOTE, remote_api_key="sk-secret\n")

    assert found.remote_api_key.get_secret_value() == "sk-secret"
