"""The network policies, enforced: each way that the picture has is open, and no other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import pytest

from arrows import ARROWS, CLIENTS, MONITORING, WHO, Arrow
from cluster.machines import Cluster
from cluster.release import Release, labels_of, probe
from waiting import eventually

OUTSIDE = {"client": CLIENTS, "prometheus": MONITORING, "stranger": {}}
"""Namespaces with one pod each, and their labels."""

PROBE = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor
def is_open(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 3).close()
    except OSError:
        return False
    return True
with ThreadPoolExecutor(50) as pool:
    for address, found in zip(sys.argv[1:], pool.map(is_open, sys.argv[1:])):
        print(address, int(found))
"""


@pytest.fixture
def visitors(cluster: Cluster, steno: Release) -> Iterator[dict[str, tuple[str, str]]]:
    """Pods outside of Steno, and of those of its own pods that do not stay: namespace and name."""
    for name, labels in OUTSIDE.items():
        Release(cluster, name).make_namespace(**labels)
        cluster.apply(probe(name, name, {}))
    # Jobs' pods are gone by now: some with their labels stand in for them.
    for name in ("migrate", "test"):
        cluster.apply(probe(steno.namespace, f"probe-{name}", labels_of(name)))
    pods = {name: (name, name) for name in OUTSIDE}
    pods |= {name: (steno.namespace, f"probe-{name}") for name in ("migrate", "test")}
    for namespace, pod in pods.values():
        cluster.kubectl("wait", f"--namespace={namespace}", f"pod/{pod}", "--for=condition=Ready")
    steno.upgrade(WHO)
    yield pods
    steno.roll_back()
    for namespace, pod in pods.values():
        cluster.kubectl("delete", f"--namespace={namespace}", f"pod/{pod}", "--now")


async def test_the_ways_that_are_open_are_the_arrows_of_the_picture(
    cluster: Cluster, steno: Release, visitors: dict[str, tuple[str, str]]
) -> None:
    components = steno.pods()
    sources = visitors | {
        component: (steno.namespace, pods[0]["metadata"]["name"])
        for component, pods in components.items()
        if component not in visitors
    }
    targets = {
        f"{pod['status']['podIP']}:{port['containerPort']}": (component, port["containerPort"])
        for component, pods in components.items()
        if component not in visitors
        for pod in pods
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
    }

    def ways() -> dict[Arrow, list[bool]]:
        """Whether each way is open: to each pod of the target."""
        found = defaultdict(list)
        for source, (namespace, pod) in sources.items():
            printed = cluster.kubectl(
                *("exec", f"--namespace={namespace}", pod, "--", "python3", "-c", PROBE, *targets)
            )
            for line in printed.splitlines():
                address, is_open = line.split()
                target, port = targets[address]
                if source != target:
                    found[source, target, port].append(is_open == "1")
        return found

    def are_as_drawn() -> bool:
        found = ways()
        assert {arrow for arrow, opens in found.items() if any(opens)} == ARROWS
        assert {arrow for arrow, opens in found.items() if all(opens)} == ARROWS
        return True

    await eventually(are_as_drawn, within=60, every=2)
