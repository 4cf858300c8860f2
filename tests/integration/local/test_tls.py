"""Services and the command over TLS."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from certificates import make_certificate, needs_openssl
from recordings import EXAMPLES
from steno.local.child import Child, Command
from steno.local.health import grpc_health, must_be_ready
from steno.local.ports import HOST, free_port

pytestmark = needs_openssl

STENO = str(Path(sys.executable).with_name("steno"))


@pytest.fixture
async def addresses(environment: dict[str, str], tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """Where upload and job serve, over TLS only; the environment of who knows their authority."""
    make_certificate(tmp_path / "tls.crt", tmp_path / "tls.key")
    services = ("upload", "job")
    addresses = {f"STENO_{name.upper()}_ADDRESS": f"{HOST}:{free_port()}" for name in services}
    addresses["STENO_TLS_CA"] = str(tmp_path / "tls.crt")
    async with AsyncExitStack() as stack:
        for name in services:
            probed = f"{HOST}:{free_port()}"
            own = {
                "STENO_LISTEN": addresses[f"STENO_{name.upper()}_ADDRESS"],
                "STENO_HEALTH_LISTEN": probed,
                "STENO_TLS_CERTIFICATE": str(tmp_path / "tls.crt"),
                "STENO_TLS_KEY": str(tmp_path / "tls.key"),
            }
            command = Command(
                [sys.executable, "-m", f"steno.{name}"],
                environment={**environment, **addresses, **own},
                log=tmp_path / f"{name}.log",
            )
            child = Child(name, command)
            child.start()
            stack.push_async_callback(child.kill)
            await child.ready(must_be_ready(grpc_health, probed), 60)
        yield addresses


async def steno(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command."""
    command = await asyncio.create_subprocess_exec(
        *(STENO, *arguments),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await command.communicate()
    assert command.returncode is not None
    return command.returncode, out.decode(), err.decode()


async def test_a_file_becomes_a_job_over_tls_alone(addresses: dict[str, str]) -> None:
    """The job service asks the upload service for the audio, over TLS too."""
    file = str(EXAMPLES / "week.ogg")
    code, out, err = await steno("transcribe", file, "--no-wait", "--json", **addresses)

    assert code == 0, err
    assert json.loads(out)["jobs"]


async def test_who_speaks_plainly_reaches_nobody(addresses: dict[str, str]) -> None:
    plainly = {name: value for name, value in addresses.items() if name != "STENO_TLS_CA"}

    code, _, err = await steno("jobs", "list", **plainly)

    assert (code, "does not answer" in err) == (3, True)


async def test_authorities_that_can_not_be_read_are_a_wrong_use() -> None:
    address = f"{HOST}:{free_port()}"
    code, _, err = await steno("jobs", "list", "--address", address, STENO_TLS_CA="/none")

    assert (code, "STENO_TLS_CA: /none" in err) == (2, True)
