"""A cluster's machines: this process's namespaces are the control plane, nodes have their own.

with Cluster(programs, images, folder) as cluster:
    cluster.nodes["node2"].kill()   # as if its plug had been pulled
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import yaml

from cluster.images import lay_out
from manifests import Manifest

HERE = "172.31.0.1"
NODES = {"node1": ("172.31.0.11", "10.244.1.0/24"), "node2": ("172.31.0.12", "10.244.2.0/24")}
"""Addresses of the nodes and of their pods, in a network that only these namespaces have."""

SERVICES = "10.96.0.0/16"
GROUP = "steno-cluster"

KUBECONFIG = f"""\
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "https://{HERE}:6443", insecure-skip-tls-verify: true}}}}]
users: [{{name: u, user: {{token: token}}}}]
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
current-context: c
"""

COREFILE = """\
.:53 {{
    errors
    kubernetes cluster.local {{
        kubeconfig {kubeconfig}
        ttl 5
    }}
}}
"""

START_SECONDS = 180.0


class Machine:
    """Runs programs until the end of the tests; each writes a log in the folder."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, name: str, *arguments: str | Path) -> None:
        with Path(self._folder, f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                [self._programs / name, *arguments], stdout=log, stderr=log
            )

    def log(self, name: str) -> str:
        return Path(self._folder, f"{name}.log").read_text(errors="replace")

    def until(self, look: Callable[[], bool]) -> None:
        """Waits for what its programs do; fails as soon as one of them ends."""
        deadline = time.monotonic() + START_SECONDS
        while not look():
            for name, process in self._running.items():
                assert process.poll() is None, f"{name} has ended:\n{self.log(name)[-4000:]}"
            assert time.monotonic() < deadline, f"not in {START_SECONDS} s"
            time.sleep(0.2)

    def stop(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()


class Node:
    """A machine that runs pods."""

    def __init__(self, name: str, folder: Path, programs: Path, kubeconfig: Path) -> None:
        self.name = name
        self.address, pods = NODES[name]
        self.folder = folder
        self._groups = control_groups(name)
        for group in self._groups:
            make_control_group(group.parent)
            make_control_group(group)
        with (folder / "node.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--cgroup", "--pid"),
                    *("--fork", "--kill-child", "--net", "--uts", "--ipc", "--mount-proc"),
                    *("bash", Path(__file__).with_name("node.sh"), name, self.address, pods),
                    *(folder, programs, kubeconfig),
                ],
                stdout=log,
                stderr=log,
                preexec_fn=self._join,
            )
        self._plug_in()

    def _join(self) -> None:
        for group in self._groups:
            (group / "cgroup.procs").write_text("0")

    def _plug_in(self) -> None:
        """Lays a cable from the node to the switch."""
        own = os.readlink("/proc/self/ns/net")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        while not (pids := children.read_text().split()) or (
            os.readlink(f"/proc/{pids[0]}/ns/net") == own
        ):
            assert self._process.poll() is None, self.log()
            time.sleep(0.05)
        _ip(
            "link",
            "add",
            self.name,
            "master",
            "lan",
            "type",
            "veth",
            "peer",
            "eth0",
            "netns",
            pids[0],
        )
        _ip("link", "set", self.name, "up")

    def check(self) -> None:
        """Fails if it has ended, with what it says of that."""
        assert self._process.poll() is None, self.log()

    def log(self) -> str:
        """The end of each log, node.sh's own first."""
        logs = [self.folder / "node.log", *sorted(self.folder.glob("var/log/*.log"))]
        return "\n".join(
            f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs
        )

    @property
    def is_lost(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        """Ends it at once, with all that runs on it, as if its plug had been pulled."""
        self._process.kill()
        self._process.wait()
        # Its end of the cable goes with its network, some time later.
        subprocess.run(["ip", "link", "delete", self.name], capture_output=True)


class Cluster:
    """The control plane, as programs beside the tests; and the nodes."""

    def __init__(self, programs: Path, images: Path, folder: Path) -> None:
        self.programs = programs
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self.nodes: dict[str, Node] = {}
        self._images = images
        self._machine = Machine(programs, folder)

    def __enter__(self) -> Cluster:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for node in self.nodes.values():
            node.kill()
        self._machine.stop()

    def _start(self) -> None:
        self.kubeconfig.write_text(KUBECONFIG)
        _ip("link", "set", "lo", "up")
        _ip("link", "add", "lan", "type", "bridge")
        _ip("address", "add", f"{HERE}/24", "dev", "lan")
        _ip("link", "set", "lan", "up")
        self._start_control_plane()
        routes = "".join(f"{pods} {address}\n" for address, pods in NODES.values())
        (self.folder / "routes").write_text(routes)
        for name, (address, pods) in NODES.items():
            _ip("route", "add", pods, "via", address)
            self.start_node(name)
        self._machine.until(self._are_ready)

    def _are_ready(self) -> bool:
        """Whether all nodes take pods."""
        for node in self.nodes.values():
            node.check()
        wait = ("wait", "--for=condition=Ready", "--timeout=1s")
        return self.tries(*wait, *(f"node/{name}" for name in self.nodes))

    def _start_control_plane(self) -> None:
        folder, machine = self.folder, self._machine
        key = folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        (folder / "tokens").write_text('token,admin,admin,"system:masters"\n')
        machine.run(
            "etcd",
            *(f"--data-dir={folder}/etcd", "--unsafe-no-fsync", "--log-level=warn"),
            *(
                "--listen-peer-urls=http://127.0.0.1:2380",
                "--listen-client-urls=http://127.0.0.1:2379",
            ),
            "--advertise-client-urls=http://127.0.0.1:2379",
        )
        machine.run(
            "kube-apiserver",
            *("--etcd-servers=http://127.0.0.1:2379", f"--cert-dir={folder}"),
            *(f"--advertise-address={HERE}", f"--service-cluster-ip-range={SERVICES}"),
            *(f"--token-auth-file={folder}/tokens", "--authorization-mode=RBAC"),
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            # Pods of a lost node are replaced soon.
            *(
                "--default-not-ready-toleration-seconds=5",
                "--default-unreachable-toleration-seconds=5",
            ),
        )
        machine.until(lambda: self.tries("get", "--raw=/readyz"))
        machine.run(
            "kube-controller-manager",
            *(f"--kubeconfig={self.kubeconfig}", f"--service-account-private-key-file={key}"),
            *(
                "--leader-elect=false",
                "--node-monitor-grace-period=10s",
                f"--cert-dir={folder}/kcm",
            ),
        )
        machine.run(
            "kube-scheduler",
            *(
                f"--kubeconfig={self.kubeconfig}",
                "--leader-elect=false",
                f"--cert-dir={folder}/scheduler",
            ),
        )
        corefile = folder / "Corefile"
        corefile.write_text(COREFILE.format(kubeconfig=self.kubeconfig))
        machine.run("coredns", "-conf", corefile)
        # These tests resolve the cluster's names, too.
        (folder / "resolv.conf").write_text(f"nameserver {HERE}\n")
        subprocess.run(["mount", "--bind", folder / "resolv.conf", "/etc/resolv.conf"], check=True)

    def bring_back(self, name: str) -> None:
        """Has a drained node take pods again, or puts a new one in the place of a lost one."""
        if self.nodes[name].is_lost:
            self.start_node(name)
        self.kubectl("uncordon", name)
        self.kubectl("wait", f"node/{name}", "--for=condition=Ready", "--timeout=60s")

    def start_node(self, name: str) -> None:
        """Adds a node, with all images and nothing else on it."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        (folder / "var/lib").mkdir(parents=True)
        lay_out(self._images, folder / "var/lib/containerd")
        self.nodes[name] = Node(name, folder, self.programs, self.kubeconfig)

    def tries(self, *arguments: str) -> bool:
        """Whether a command of kubectl succeeds."""
        return self._done("kubectl", *arguments).returncode == 0

    def command(self, name: str, *arguments: str, input: str | None = None) -> str:
        """Runs kubectl, helm or grpcurl to the end; returns what it prints."""
        done = self._done(name, *arguments, input=input)
        assert done.returncode == 0, f"{name} {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        return self.command("kubectl", *arguments, input=input)

    def _done(
        self, name: str, *arguments: str, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.programs / name, *arguments],
            input=input,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=300,
        )

    @property
    def environment(self) -> dict[str, str]:
        """That of kubectl and helm."""
        return {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "HELM_CACHE_HOME": f"{self.folder}/helm",
        }

    def apply(self, *manifests: Manifest) -> None:
        """Makes objects as they are given."""
        self.kubectl("apply", "--filename=-", input=yaml.safe_dump_all(manifests))

    def objects(self, kind: str, *arguments: str) -> list[Manifest]:
        """The objects of a kind that are there now."""
        found = json.loads(self.kubectl("get", kind, "--output=json", *arguments))
        items: list[Manifest] = found["items"]
        return items

    @contextmanager
    def forwarded(self, namespace: str, target: str, port: int, at: int = 0) -> Iterator[str]:
        """Opens a port of this machine to one of a pod, as people do; gives its address."""
        log = self.folder / f"forward-{uuid.uuid4().hex[:8]}.log"
        with log.open("wb") as output:
            forwarding = subprocess.Popen(
                [
                    *(self.programs / "kubectl", "port-forward", f"--namespace={namespace}"),
                    *(target, f"{at or ''}:{port}"),
                ],
                stdout=output,
                stderr=output,
                env=self.environment,
            )
        try:
            deadline = time.monotonic() + 30
            while not (said := re.search(r"from 127\.0\.0\.1:(\d+)", log.read_text())):
                assert forwarding.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield f"127.0.0.1:{said[1]}"
        finally:
            forwarding.terminate()
            forwarding.wait()


def control_groups(node: str) -> list[Path]:
    """A node's control group under each controller, below that in which the tests run."""
    groups = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        mount = Path("/sys/fs/cgroup", controllers.removeprefix("name="))
        if controllers and mount.is_dir():
            groups.append(mount / path.lstrip("/") / GROUP / node)
    return groups


def make_control_group(group: Path) -> None:
    """Makes one that may have processes: on the cores and the memory that the one above may use."""
    group.mkdir(exist_ok=True)
    for file in ("cpuset.cpus", "cpuset.mems"):
        if (group / file).exists():
            (group / file).write_text((group.parent / file).read_text())


def remove_control_groups() -> None:
    """Removes the control groups of all nodes, whose processes have ended."""
    for root in {group.parent for group in control_groups("any")}:
        for folder, _, _ in os.walk(root, topdown=False):
            os.rmdir(folder)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
