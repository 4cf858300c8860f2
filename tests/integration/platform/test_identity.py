"""The S3 store is reached with credentials that the pod's identity gets, and that end."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from steno.local.ports import HOST
from steno.platform import objects
from steno.platform.errors import Unavailable
from steno.platform.objects import ObjectStore, open_store
from steno.platform.settings import S3Settings
from waiting import eventually

MINUTE = timedelta(minutes=1)


class Issuer:
    """Answers as the agent beside a pod does, with the keys of the real store."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.asked = 0
        self.lasts = timedelta(hours=1)
        self.token = ""
        self._environment = environment

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        body = json.dumps(
            {
                "AccessKeyId": self._environment["STENO_S3_ACCESS_KEY"],
                "SecretAccessKey": self._environment["STENO_S3_SECRET_KEY"],
                "Token": self.token,
                "Expiration": (datetime.now(UTC) + self.lasts).strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        ).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def issuer(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Issuer]:
    issuer = Issuer(dict(environment))
    server = await asyncio.start_server(issuer.meet, HOST, 0)
    address = f"http://{HOST}:{server.sockets[0].getsockname()[1]}/credentials"
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", address)
    for name in ("STENO_S3_ACCESS_KEY", "STENO_S3_SECRET_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(objects, "_AGAIN_SECONDS", 0.05)
    yield issuer
    server.close()


async def checked(store: ObjectStore) -> bool:
    try:
        await store.check()
    except Unavailable:
        return False
    return True


async def test_without_keys_the_store_is_reached_by_the_identity_of_the_pod(issuer: Issuer) -> None:
    async with open_store(S3Settings()) as store:
        await eventually(lambda: checked(store))
        await store.put("key", b"value")
        upload = await store.create_multipart("parts", "audio/wav")
        url = store.presigned_get("key", MINUTE)
        (part,) = store.presigned_parts("parts", upload, {1: 3}, MINUTE).values()

        def told() -> tuple[bytes, int]:
            sent = urllib.request.Request(part, b"end", {"Content-Length": "3"}, method="PUT")
            with urllib.request.urlopen(url) as got, urllib.request.urlopen(sent) as put:
                return got.read(), put.status

        assert await asyncio.to_thread(told) == (b"value", 200)
        await store.abort_multipart("parts", upload)


async def test_credentials_that_end_are_renewed_before(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_RENEW_SECONDS", 0.05)
    async with open_store(S3Settings()) as store:
        await eventually(lambda: issuer.asked >= 3)
        await eventually(lambda: checked(store))


async def test_credentials_that_have_ended_are_not_used(issuer: Issuer) -> None:
    issuer.lasts = timedelta(0)
    async with open_store(S3Settings()) as store:
        await eventually(lambda: issuer.asked)
        assert not await checked(store)
        with pytest.raises(Unavailable, match="no credentials"):
            store.presigned_get("key", MINUTE)


async def test_urls_of_such_credentials_have_their_token(issuer: Issuer) -> None:
    issuer.token = "a/token+of=some=kind"
    async with open_store(S3Settings()) as store:

        def signed() -> str:
            try:
                return store.presigned_get("key", MINUTE)
            except Unavailable:
                return ""

        urls = [await eventually(signed), *store.presigned_parts("k", "u", {1: 3}, MINUTE).values()]

    for url in urls:
        assert parse_qs(urlsplit(url).query)["X-Amz-Security-Token"] == [issuer.token]


async def test_with_keys_nobody_else_is_asked(issuer: Issuer, environment: dict[str, str]) -> None:
    settings = S3Settings(
        s3_access_key=SecretStr(environment["STENO_S3_ACCESS_KEY"]),
        s3_secret_key=SecretStr(environment["STENO_S3_SECRET_KEY"]),
    )
    async with open_store(settings) as store:
        await store.check()
    assert issuer.asked == 0
