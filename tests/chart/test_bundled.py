"""The bundled servers take the options and the configuration that the chart gives them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from manifests import PROFILES, component_of, of_kind, render
from steno.local.ports import free_port
from steno.platform.objects import open_store
from steno.platform.settings import S3Settings
from waiting import eventually

MANIFESTS = render(PROFILES["dev"])
(SECRET,) = of_kind(MANIFESTS, "Secret")
COMMANDS = {
    component_of(server): server["spec"]["template"]["spec"]["containers"][0].get("command")
    for server in of_kind(MANIFESTS, "StatefulSet")
}


def program(name: str) -> str:
    """A server of the same version as the chart's, from a wheel."""
    return str(Path(sys.executable).with_name(name))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The Secret as a pod sees it."""
    for name, value in SECRET["stringData"].items():
        (tmp_path / name).write_text(value)
    return tmp_path


def test_nats_accepts_its_configuration(config: Path) -> None:
    name, option, file = COMMANDS["nats"]
    assert (name, option) == ("nats-server", "--config")

    checked = subprocess.run(
        [program(name), "-t", option, file.replace("/config", str(config))],
        capture_output=True,
        text=True,
    )

    assert checked.returncode == 0, checked.stderr


@pytest.fixture
def s3(config: Path) -> Iterator[int]:
    """SeaweedFS with the chart's options, on free ports of the loopback address; its S3 port."""
    folders = {"data": config / "data", "config": config, "tmp": config}
    folders["data"].mkdir()
    port = free_port()
    name, *options = COMMANDS["s3"]
    here = [
        re.sub(r"=/(data|config|tmp)\b", lambda folder: f"={folders[folder[1]]}", option)
        .replace("0.0.0.0", "127.0.0.1")
        .replace("=8333", f"={port}")
        for option in options
    ]
    for part in ("master", "volume", "filer", "s3"):
        here.append(f"-{part}.port.grpc={free_port()}")
        if part != "s3":
            here.append(f"-{part}.port={free_port()}")
    with (config / "log").open("w") as log:
        server = subprocess.Popen([program(name), *here], stdout=log, stderr=log, cwd=config)
    yield port
    server.kill()
    server.wait()
    for socket in Path("/tmp").glob("seaweedfs-*.sock"):
        if any(socket.name.endswith(f"-{option.rpartition('=')[2]}.sock") for option in here):
            socket.unlink()


async def test_s3_takes_the_credentials_of_the_secret(s3: int) -> None:
    secrets = SECRET["stringData"]
    settings = S3Settings(
        s3_endpoint=f"http://127.0.0.1:{s3}",
        s3_access_key=SecretStr(secrets["s3-access-key"]),
        s3_secret_key=SecretStr(secrets["s3-secret-key"]),
    )
    async with open_store(settings) as store:

        async def works() -> bool:
            try:
                await store.ensure_bucket()
                await store.put("key", b"value")
            except Exception:
                return False
            return await store.get("key") == b"value"

        await eventually(works, within=60)
