"""The images of the cluster's pods, as a node's containerd has them: no registry is asked."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from cluster.programs import CACHE
from containers import build, podman

STENO = "localhost/steno"
SERVERS = "localhost/steno-servers"
PAUSE = "localhost/pause"

CONFIG = """\
version = 3
root = "{folder}"
state = "{state}"
disabled_plugins = [
  "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"
]
[grpc]
address = "{state}/socket"
[ttrpc]
address = "{state}/ttrpc"
"""


def built_images(programs: Path) -> Path:
    """A folder that containerd takes as its root, with all images unpacked in it."""
    build("steno")
    build("steno-local")
    _build_in(SERVERS, Path(__file__).parent / "servers")
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(programs / "pause", context)
        Path(context, "Dockerfile").write_text('FROM scratch\nCOPY pause /\nCMD ["/pause"]\n')
        _build_in(PAUSE, Path(context))
    # The version after this one, as far as Kubernetes can tell.
    podman("tag", STENO, f"{STENO}:next")
    names = [f"{STENO}:latest", f"{STENO}:next", f"{SERVERS}:latest", f"{PAUSE}:latest"]
    ids = podman("inspect", "--type=image", "--format={{.Id}}", *names)
    folder = CACHE / f"images-{hashlib.sha256(ids.encode()).hexdigest()[:16]}"
    if not folder.exists():
        for old in CACHE.glob("images-*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(dir=CACHE) as place:
            archive, new = Path(place, "images.tar"), Path(place, "root")
            podman("save", "--multi-image-archive", f"--output={archive}", *names)
            _unpack(programs, archive, new)
            new.rename(folder)
    return folder


def _build_in(tag: str, context: Path) -> None:
    podman("build", f"--tag={tag}", str(context))


def _unpack(programs: Path, archive: Path, folder: Path) -> None:
    """Has a containerd that runs nothing take the images in."""
    with tempfile.TemporaryDirectory() as state:
        config = Path(state, "config.toml")
        config.write_text(CONFIG.format(folder=folder, state=state))
        with Path(state, "log").open("w") as log:
            containerd = subprocess.Popen(
                [programs / "containerd", "--config", config], stdout=log, stderr=log
            )
        try:
            while not Path(state, "socket").exists():
                assert containerd.poll() is None, Path(state, "log").read_text()
                time.sleep(0.1)
            importing: list[str | Path] = [programs / "ctr", f"--address={state}/socket"]
            importing += ["--namespace=k8s.io", "images", "import", archive]
            subprocess.run(importing, check=True, stdout=subprocess.DEVNULL)
        finally:
            containerd.terminate()
            containerd.wait()


def lay_out(images: Path, folder: Path) -> None:
    """Gives a node all images without copying them: what is unpacked is never written again.

    Databases are, so each node gets its own.
    """
    subprocess.run(["cp", "--archive", "--link", images, folder], check=True)
    for database in folder.glob("*/*.db"):
        database.unlink()
        shutil.copy(images / database.relative_to(folder), database)
