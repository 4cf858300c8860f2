"""The programs of a cluster, built from Go modules once for a machine."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

CACHE = Path.home() / ".cache" / "steno-cluster"
"""Outside the clone: what is built for one serves the next."""

SOURCES = Path(__file__).parent / "go"

COMMANDS = (
    *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    *("kubelet", "kube-proxy", "kubectl"),
)
"""What the program `kubernetes` is, by the name it is called."""


def built_programs() -> Path:
    """The folder with all programs; the first time, building them takes a quarter of an hour."""
    folder = CACHE / f"programs-{_key()}"
    if folder.exists():
        return folder
    print("building Kubernetes and what it needs, once for this machine", flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as new:
        version = _version("k8s.io/kubernetes")
        major, minor, _ = version.split(".")
        told = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
        flags = [f"-X k8s.io/component-base/version.{key}={value}" for key, value in told.items()]
        subprocess.run(
            [
                "go",
                "build",
                "-buildvcs=false",
                f"-ldflags=-s -w {' '.join(flags)}",
                "-o",
                f"{new}/",
                "./...",
                "tool",
            ],
            cwd=SOURCES,
            env={**os.environ, "CGO_ENABLED": "0"},
            check=True,
        )
        for name in COMMANDS:
            Path(new, name).symlink_to("kubernetes")
        shutil.copytree(new, folder, symlinks=True)
    return folder


def _key() -> str:
    """Changes with anything that the programs are made from."""
    digest = hashlib.sha256()
    for path in sorted(path for path in SOURCES.rglob("*") if path.is_file()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _version(module: str) -> str:
    """The version of a module that go.mod asks for."""
    (version,) = re.findall(
        rf"^\t{re.escape(module)} v(\S+)$", (SOURCES / "go.mod").read_text(), re.M
    )
    return str(version)
