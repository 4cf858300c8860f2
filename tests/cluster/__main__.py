"""Tests Steno on a real cluster: `python -m cluster [options of pytest]`.

What has to be built is built first, with this machine's network. The tests, and all machines of the
cluster, then run in namespaces of their own: they have no network but one that they make, and
nothing of them outlives them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cluster.images import built_images
from cluster.machines import remove_control_groups
from cluster.programs import CACHE, built_programs

NEEDS = (
    *("go", "podman", "runc", "debootstrap", "openssl"),
    *("unshare", "setpriv", "ip", "iptables", "ipset"),
)


def missing() -> list[str]:
    """What this machine lacks for a cluster."""
    lacks = [name for name in NEEDS if shutil.which(name) is None]
    if os.geteuid() != 0:
        lacks.append("root")
    if not Path("/sys/fs/cgroup/memory").is_dir():
        lacks.append("control groups of version 1 (it was never tried on version 2)")
    return lacks


def main() -> int:
    if lacks := missing():
        print(f"SKIPPED the tests on a cluster: they need {', '.join(lacks)}")
        return 0
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(
            lock, fcntl.LOCK_EX
        )  # for the images, which are replaced, and the control groups
        programs = built_programs()
        images = built_images(programs)
        remove_control_groups()  # of a run that was killed
        with tempfile.TemporaryDirectory(prefix="run-", dir=CACHE) as folder:
            environment = {
                "STENO_CLUSTER_PROGRAMS": str(programs),
                "STENO_CLUSTER_IMAGES": str(images),
                "STENO_CLUSTER_FOLDER": folder,
            }
            done = subprocess.run(
                [
                    *("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork"),
                    *("--kill-child", "--net", "--uts", "--ipc", "--mount-proc"),
                    *(sys.executable, "-m", "pytest", str(Path(__file__).parent), *sys.argv[1:]),
                ],
                env=os.environ | environment,
            )
        remove_control_groups()
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
