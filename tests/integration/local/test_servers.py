"""The servers as users and tests of the platform rely on them."""

from __future__ import annotations

import io
import socket

import minio
import nats
import nats.errors
import psycopg
import pytest
import urllib3
from minio.error import S3Error
from nats.aio.client import Client

from steno.local.ports import is_free
from steno.local.servers import LocalServers


def store(servers: LocalServers, secret: str | None = None) -> minio.Minio:
    return minio.Minio(
        servers.environment["STENO_S3_ENDPOINT"].removeprefix("http://"),
        access_key=servers.secrets.s3_access_key,
        secret_key=secret or servers.secrets.s3_secret_key,
        secure=False,
        region="us-east-1",
        http_client=urllib3.PoolManager(retries=False, timeout=20),
    )


async def test_killed_postgres_comes_back_with_its_data(servers: LocalServers) -> None:
    with psycopg.connect(servers.postgres.url) as db:
        db.execute("CREATE TABLE kept (number int)")
        db.execute("INSERT INTO kept VALUES (42)")

    await servers.postgres.kill()
    await servers.postgres.start()

    with psycopg.connect(servers.postgres.url) as db:
        assert db.execute("SELECT number FROM kept").fetchone() == (42,)
        db.execute("DROP TABLE kept")


async def test_killed_nats_comes_back_with_its_messages(servers: LocalServers) -> None:
    await publish_one(servers)

    await servers.nats.kill()
    await servers.nats.start()

    assert await streams(servers) == {"KEPT": 1}
    await delete_stream(servers)


async def test_wiped_nats_comes_back_empty(servers: LocalServers) -> None:
    await publish_one(servers)

    await servers.nats.kill()
    servers.nats.wipe()
    await servers.nats.start()

    assert await streams(servers) == {}


async def test_killed_s3_comes_back_with_its_objects(servers: LocalServers) -> None:
    store(servers).put_object("steno", "kept", io.BytesIO(b"x" * 1_000_000), 1_000_000)

    await servers.s3.kill()
    await servers.s3.start()

    answer = store(servers).get_object("steno", "kept")
    assert answer.data == b"x" * 1_000_000
    answer.close()
    store(servers).remove_object("steno", "kept")


def test_postgres_refuses_who_does_not_know_its_password(servers: LocalServers) -> None:
    url = servers.postgres.url.replace(servers.secrets.postgres_password, "guessed")

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url)


async def test_nats_refuses_who_does_not_know_its_password(servers: LocalServers) -> None:
    async def ignore(_: Exception) -> None: ...

    client = Client()
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await client.connect(
            f"nats://127.0.0.1:{servers.nats.port}", allow_reconnect=False, error_cb=ignore
        )
    await client.close()


def test_s3_refuses_who_does_not_know_its_secret(servers: LocalServers) -> None:
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        store(servers, secret="guessed").list_buckets()


def test_s3_shows_strangers_nothing(servers: LocalServers) -> None:
    store(servers).put_object("steno", "private", io.BytesIO(b"x"), 1)

    with urllib3.PoolManager(retries=False) as http:
        answer = http.request("GET", f"{servers.s3.url}/steno/private")

    assert answer.status == 403
    store(servers).remove_object("steno", "private")


def test_nothing_listens_on_the_network(servers: LocalServers) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; tells this machine's own address
        except OSError:
            pytest.skip("this machine has no network")
        own_address = probe.getsockname()[0]

    for name, port in servers.ports.items():
        assert not is_free(port), f"{name} does not listen at all"
        with socket.socket() as stranger:
            stranger.settimeout(5)
            assert stranger.connect_ex((own_address, port)) != 0, f"{name} is open to the network"


async def publish_one(servers: LocalServers) -> None:
    connection = await nats.connect(servers.nats.url)
    await connection.jetstream().add_stream(name="KEPT", subjects=["kept"])
    await connection.jetstream().publish("kept", b"42")
    await connection.close()


async def delete_stream(servers: LocalServers) -> None:
    connection = await nats.connect(servers.nats.url)
    await connection.jetstream().delete_stream("KEPT")
    await connection.close()


async def streams(servers: LocalServers) -> dict[str, int]:
    """Messages in each stream of this file's tests."""
    connection = await nats.connect(servers.nats.url)
    found = await connection.jetstream().streams_info()
    await connection.close()
    return {s.config.name: s.state.messages for s in found if s.config.name == "KEPT"}
