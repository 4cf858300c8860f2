"""Skips where containers can't be run."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers import Containers, build, podman

NEEDS = ("podman", "runc", "debootstrap")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [name for name in NEEDS if shutil.which(name) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if missing:
        reason = f"needs {', '.join(missing)}"
        for item in items:
            if item.path.is_relative_to(Path(__file__).parent):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def image() -> str:
    """The image of the services."""
    return build("steno")


@pytest.fixture
def local_platform() -> Iterator[str]:
    """A container that runs the whole platform, on free ports."""
    name = f"local-{uuid.uuid4().hex[:8]}"
    podman(
        *("run", "--detach", f"--name={name}", "--network=host", "--cap-drop=ALL"),
        *("--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096"),
        *("--security-opt=no-new-privileges", "--read-only", "--read-only-tmpfs=false"),
        *("--tmpfs=/tmp", build("steno-local"), "steno", "up", "--port-base", "0"),
    )
    yield name
    podman("rm", "--force", "--volumes", "--time=0", name)


@pytest.fixture
def run_containers(image: str) -> Iterator[Containers]:
    containers = Containers(image)
    yield containers
    for name in containers.running:
        podman("rm", "--force", "--time=0", name)
