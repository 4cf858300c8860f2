"""Images, built on a base that needs no registry, and containers run as the chart asks for."""

from __future__ import annotations

import math
import os
import re
import subprocess
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
STORE = ROOT / ".image"
BASE = "localhost/steno-base"


def podman(*arguments: str, timeout: float = 1800) -> str:
    """Runs podman on a store of its own; returns stdout, and stderr behind it."""
    own = (f"--root={STORE}/store", f"--runroot={STORE}/run", "--runtime=runc")
    done = subprocess.run(
        ["podman", *own, *arguments], capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"podman {' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def _base() -> str:
    """An image with python3 and nothing of Steno; made once."""
    if base := os.environ.get("STENO_IMAGE_BASE"):
        return base
    if BASE not in podman("images", "--format", "{{.Repository}}"):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            include = "--include=python3,python3-venv,ca-certificates"
            subprocess.run(
                ["debootstrap", "--variant=minbase", include, "bookworm", folder],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            archive = f"{folder}.tar"
            # Nothing of the package manager's: published base images have none of it either.
            without = [f"--exclude=./var/{path}/*" for path in ("lib/apt/lists", "cache/apt")]
            subprocess.run(["tar", "-C", folder, *without, "-cf", archive, "."], check=True)
            podman("import", archive, BASE)
            Path(archive).unlink()
    return BASE


def build(target: str) -> str:
    """Builds a stage of the Dockerfile from the sources as they are now; returns its tag."""
    tag = f"localhost/{target}"
    # This machine's way to PyPI, whatever it is.
    ways = [path for path in ("/etc/pip.conf", "/etc/ssl/certs") if Path(path).exists()]
    podman(
        *("build", "--network=host", "--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096"),
        *(f"--volume={path}:{path}:ro" for path in ways),
        *(f"--build-arg=PYTHON_IMAGE={_base()}", f"--target={target}", f"--tag={tag}", str(ROOT)),
    )
    return tag


@dataclass
class Containers:
    """Runs containers of the chart's pods, under the pods' security and limits."""

    image: str
    running: list[str] = field(default_factory=list)

    def options(self, pod: dict[str, Any], container: dict[str, Any]) -> list[str]:
        spec, context = pod["spec"], container["securityContext"]
        user = spec["securityContext"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        options = [
            "--network=host",
            "--ulimit=nofile=4096:4096",
            "--ulimit=nproc=4096:4096",
            f"--user={user['runAsUser']}:{user['runAsGroup']}",
            f"--memory={_bytes(container['resources']['limits']['memory'])}",
            *(f"--cap-drop={each}" for each in context["capabilities"]["drop"]),
        ]
        if not context["allowPrivilegeEscalation"]:
            options.append("--security-opt=no-new-privileges")
        if context["readOnlyRootFilesystem"]:
            options += ["--read-only", "--read-only-tmpfs=false"]
        for mount in container["volumeMounts"]:
            size = _bytes(volumes[mount["name"]]["emptyDir"]["sizeLimit"])
            options.append(f"--tmpfs={mount['mountPath']}:size={size},mode=1777")
        return options

    def environment(
        self, container: dict[str, Any], values: dict[str, str], name: str
    ) -> list[str]:
        """The container's variables; `values` has what only a cluster would know."""
        found = {}
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            found[variable["name"]] = variable.get("value", "")
            if "fieldRef" in source:
                found[variable["name"]] = name
            elif "resourceFieldRef" in source:
                found[variable["name"]] = str(
                    math.ceil(float(container["resources"]["limits"]["cpu"]))
                )
        return [f"--env={key}={values.get(key, value)}" for key, value in found.items()]

    def run(self, pod: dict[str, Any], values: dict[str, str]) -> str:
        """Runs a pod's only container to its end; returns what it has printed."""
        (container,) = pod["spec"]["containers"]
        return podman(
            *("run", "--rm", *self.options(pod, container)),
            *self.environment(container, values, "once"),
            *(self.image, *container["command"]),
            timeout=300,
        )

    def start(self, pod: dict[str, Any], values: dict[str, str]) -> str:
        """Starts a pod's only container; returns its name."""
        (container,) = pod["spec"]["containers"]
        name = f"{container['name']}-{uuid.uuid4().hex[:8]}"
        self.running.append(name)
        podman(
            *("run", "--detach", f"--name={name}", *self.options(pod, container)),
            *self.environment(container, values, name),
            *(self.image, *container["command"]),
        )
        return name

    def state(self, name: str) -> str:
        return podman("inspect", "--format={{.State.Status}} {{.State.ExitCode}}", name).strip()

    def stop(self, name: str, seconds: int) -> str:
        """Stops a container as Kubernetes does; returns its state."""
        podman("stop", f"--time={seconds}", name)
        return self.state(name)

    def logs(self, name: str) -> str:
        return podman("logs", name)


def _bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w*)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[unit]
