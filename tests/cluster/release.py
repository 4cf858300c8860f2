"""Steno on the cluster, installed by Helm as its README says."""

from __future__ import annotations

from pathlib import Path

import yaml

from cluster.images import SERVERS, STENO
from cluster.machines import HERE, Cluster
from manifests import CHART, Manifest, Values, component_of, merged, profile

PORTS = {"upload": 50051, "job": 50052, "transcription": 50053, "concatenation": 50054}

VALUES = merged(
    profile("dev"),
    {
        "image": {"registry": "localhost", "tag": "latest"},
        "bundled": {
            "images": dict.fromkeys(("postgres", "nats", "seaweedfs"), f"{SERVERS}:latest")
        },
        # Pods of the cluster, and these tests, which are outside of it.
        "networkPolicy": {
            "clients": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": f"{HERE}/32"}}]
        },
    },
)
"""Everything in the cluster; images that are on the nodes."""


WAITING = ("--wait", "--timeout=180s")


class Release:
    """Steno in a namespace that holds pods to the restricted standard."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self.namespace = namespace

    @property
    def addresses(self) -> dict[str, str]:
        """The services by their names in the cluster."""
        return {service: f"dns:///{self.host(service)}:{port}" for service, port in PORTS.items()}

    def host(self, service: str) -> str:
        return f"steno-{service}.{self.namespace}.svc.cluster.local"

    def make_namespace(self, **labels: str) -> None:
        enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
        self._cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": self.namespace, "labels": enforced | labels},
            }
        )

    def install(self, values: Values) -> None:
        """Installs it and waits until it is ready."""
        self._helm("install", "steno", str(CHART), f"--values={self._file(values)}", *WAITING)

    def upgrade(self, changes: Values) -> None:
        """Upgrades it to some other values, as docs/operations.md does."""
        values = f"--values={self._file(changes)}"
        self._helm("upgrade", "steno", str(CHART), "--reset-then-reuse-values", values, *WAITING)

    def _file(self, values: Values) -> Path:
        file = Path(self._cluster.folder, f"values-{self.namespace}.yaml")
        file.write_text(yaml.safe_dump(values))
        return file

    def roll_back(self) -> None:
        self._helm("rollback", "steno", *WAITING)

    def test(self) -> str:
        """What `helm test` prints, its pod's log included. Fails if it does."""
        return self._helm("test", "steno", "--logs", "--timeout=120s")

    def uninstall(self) -> None:
        self._helm("uninstall", "steno", *WAITING)
        self._cluster.kubectl("delete", "namespace", self.namespace)

    def _helm(self, command: str, *arguments: str) -> str:
        return self._cluster.command("helm", command, f"--namespace={self.namespace}", *arguments)

    def kubectl(self, *arguments: str) -> str:
        return self._cluster.kubectl(f"--namespace={self.namespace}", *arguments)

    def pods(self) -> dict[str, list[Manifest]]:
        """Its pods that run and are to stay, by component."""
        found: dict[str, list[Manifest]] = {}
        for pod in self._cluster.objects("pods", f"--namespace={self.namespace}"):
            if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]:
                found.setdefault(component_of(pod), []).append(pod)
        return found

    def services(self) -> dict[str, list[Manifest]]:
        """The same of Steno's own services only."""
        return {
            component: pods
            for component, pods in self.pods().items()
            if component in ("upload", "prepare", "job", "transcription-default", "concatenation")
        }

    def restart(self) -> None:
        """Replaces all pods of the services, one by one."""
        self.kubectl("rollout", "restart", "deployment")
        self.wait()

    def wait(self) -> None:
        """Waits until all pods of the services are there and ready."""
        self.kubectl("rollout", "status", "deployment", "--timeout=150s")

    def spread(self) -> None:
        """Has each service that is on one node only begin anew with one pod: it gets the other."""
        for pods in self.services().values():
            if len({pod["spec"]["nodeName"] for pod in pods}) == 1:
                self.kubectl("delete", "pod", pods[0]["metadata"]["name"])
        self.wait()


def labels_of(component: str) -> dict[str, str]:
    """By which policies know a component's pods."""
    return {
        "app.kubernetes.io/name": "steno",
        "app.kubernetes.io/instance": "steno",
        "app.kubernetes.io/component": component,
    }


def probe(namespace: str, name: str, labels: dict[str, str]) -> Manifest:
    """A pod that does nothing, to look from."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"key": "servers", "operator": "Exists"}],
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "probe",
                    "image": f"{STENO}:latest",
                    "imagePullPolicy": "Never",
                    "command": ["sleep", "infinity"],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }
