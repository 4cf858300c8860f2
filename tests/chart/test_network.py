"""The network policies allow the arrows of the architecture's picture, and no others."""

from __future__ import annotations

from typing import Any

import pytest

from arrows import ARROWS, CLIENTS, MONITORING, WHO, Arrow
from manifests import (
    NAMESPACE,
    PROFILES,
    Values,
    component_of,
    containers,
    merged,
    of_kind,
    pods,
    render,
)

ELSEWHERE = {(each, "neighbour", 80) for each in ("client", "prometheus", "stranger")}
"""What Steno's policies do not touch."""

Pod = dict[str, Any]
OUTSIDE = {"client": CLIENTS, "prometheus": MONITORING, "stranger": {}}
"""Pods of other namespaces, with the labels of those."""


def pods_of(manifests: list[Any]) -> dict[str, Pod]:
    inside = {
        component_of(pod): {
            "labels": pod["metadata"]["labels"],
            "namespace": {"kubernetes.io/metadata.name": NAMESPACE},
            "ports": {
                port["containerPort"] for c in containers(pod) for port in c.get("ports", [])
            },
        }
        for _, pod in pods(manifests)
    }
    outside = {
        name: {"labels": {}, "namespace": labels, "ports": set()}
        for name, labels in OUTSIDE.items()
    }
    neighbour = {
        "neighbour": {
            "labels": {},
            "namespace": {"kubernetes.io/metadata.name": NAMESPACE},
            "ports": {80},
        }
    }
    return inside | outside | neighbour


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


def is_peer(peer: dict[str, Any], pod: Pod) -> bool:
    if "ipBlock" in peer:
        return False
    own = {"kubernetes.io/metadata.name": NAMESPACE}
    in_namespace = (
        matches(peer["namespaceSelector"], pod["namespace"])
        if "namespaceSelector" in peer
        else pod["namespace"] == own
    )
    return in_namespace and matches(peer.get("podSelector", {}), pod["labels"])


def allows(policies: list[Any], of: Pod, direction: str, other: Pod, port: int) -> bool:
    """As Kubernetes decides: what no policy selects is open; else one rule must allow it."""
    selecting = [
        policy["spec"]
        for policy in policies
        if direction.capitalize() in policy["spec"]["policyTypes"]
        and of["namespace"] == {"kubernetes.io/metadata.name": NAMESPACE}
        and matches(policy["spec"]["podSelector"], of["labels"])
    ]
    if not selecting:
        return True
    peers = {"ingress": "from", "egress": "to"}[direction]
    return any(
        any(each["port"] == port and each.get("protocol", "TCP") == "TCP" for each in rule["ports"])
        and (not rule.get(peers) or any(is_peer(peer, other) for peer in rule[peers]))
        for spec in selecting
        for rule in spec.get(direction) or []
    )


def arrows(manifests: list[Any]) -> set[Arrow]:
    """Every way from a pod to a port of another that is open on both sides."""
    policies, everyone = of_kind(manifests, "NetworkPolicy"), pods_of(manifests)
    return {
        (source, target, port)
        for source, sender in everyone.items()
        for target, receiver in everyone.items()
        if source != target
        for port in receiver["ports"]
        if allows(policies, sender, "egress", receiver, port)
        and allows(policies, receiver, "ingress", sender, port)
    }


def test_the_ways_that_are_open_are_the_arrows_of_the_picture() -> None:
    found = arrows(render(merged(PROFILES["dev"], WHO)))

    assert found == ARROWS | ELSEWHERE


def test_without_live_sessions_their_arrows_are_gone() -> None:
    found = arrows(render(merged(PROFILES["dev"], WHO, {"concatenation": {"enabled": False}})))

    assert found == {arrow for arrow in ARROWS | ELSEWHERE if "concatenation" not in arrow}


def test_an_empty_list_of_who_may_call_is_nobody() -> None:
    nobody: Values = {"networkPolicy": {"clients": [], "monitoring": []}}

    found = arrows(render(merged(PROFILES["dev"], nobody)))

    assert {source for source, _, _ in found - ELSEWHERE} == {source for source, _, _ in ARROWS} - {
        "client",
        "prometheus",
    }


def test_without_policies_everything_is_open() -> None:
    """Or else the test above would show nothing."""
    found = arrows(render(merged(PROFILES["dev"], {"networkPolicy": {"enabled": False}})))

    assert ("stranger", "postgres", 5432) in found
    assert ("prepare", "job", 50052) in found


def test_a_pool_beside_the_default_one_is_not_called_by_clients() -> None:
    two: Values = {"transcription": {"pools": {"large": {}}}}

    found = arrows(render(merged(PROFILES["dev"], WHO, two)))

    assert ("client", "transcription-default", 50053) in found
    assert ("client", "transcription-large", 50053) not in found
    assert ("transcription-large", "job", 50052) in found


def ways_out(values: dict[str, Any]) -> dict[str, set[int]]:
    """Ports that each component may reach at any address, names of servers aside."""
    return {
        component_of(policy): {
            each["port"]
            for rule in policy["spec"].get("egress", [])
            if not rule.get("to")
            for each in rule["ports"]
        }
        - {53}
        for policy in of_kind(render(values), "NetworkPolicy")
    }


def test_servers_elsewhere_are_reached_by_whom_they_are_for() -> None:
    assert ways_out(PROFILES["defaults"]) == {
        "upload": {5432, 4222, 443},
        "prepare": {5432, 4222, 443},
        "job": {5432, 4222},
        "transcription-default": {4222, 443},
        "concatenation": {5432, 4222, 443},
        "migrate": {5432},
        "fetch": {443},
        "test": set(),
    }


def test_addresses_of_servers_elsewhere_can_be_named() -> None:
    found = ways_out(PROFILES["everything"])

    assert 5432 not in found["upload"] | found["job"] | found["migrate"]
    assert 4317 in found["upload"]  # the collector of traces
    assert 8000 not in found["transcription-remote"]


def test_a_pool_whose_engine_is_remote_reaches_its_server_and_no_other_pool_does() -> None:
    remote = {"url": "http://speech:8000/v1", "model": "whisper-1"}
    pools = {"transcription": {"pools": {"remote": {"remote": remote}}}}
    found = ways_out(merged(PROFILES["defaults"], pools))

    assert found["transcription-remote"] == {4222, 443, 8000}
    assert {name for name, ports in found.items() if 8000 in ports} == {"transcription-remote"}


@pytest.mark.parametrize(
    ("url", "given", "port"),
    [
        ("https://api.openai.com/v1", {}, 443),
        ("http://speech/v1", {}, 80),
        ("http://[fd00::8]:8000/v1", {}, 8000),
        ("http://speech:80/v1", {"port": 8000}, 8000),
    ],
)
def test_the_way_to_a_remote_server_is_at_the_port_of_its_address_unless_another_is_given(
    url: str, given: dict[str, int], port: int
) -> None:
    remote = {"url": url, "model": "whisper-1", **given}
    pools = {"transcription": {"pools": {"remote": {"remote": remote}}}}
    found = ways_out(merged(PROFILES["defaults"], pools))

    assert found["transcription-remote"] == {4222, 443, port}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_pod_that_runs_before_the_release_has_its_policy_before(profile: str) -> None:
    """Or else it reaches nothing in a namespace that denies by default."""
    manifests = render(PROFILES[profile])

    def hook(manifest: Any) -> tuple[set[str], int]:
        notes = manifest["metadata"].get("annotations", {})
        events = set(filter(None, notes.get("helm.sh/hook", "").split(",")))
        return events, int(notes.get("helm.sh/hook-weight", 0))

    policies = {component_of(each): hook(each) for each in of_kind(manifests, "NetworkPolicy")}
    early = [owner for owner, _ in pods(manifests) if "pre-install" in hook(owner)[0]]
    for owner in early:
        (events, weight), (made, before) = hook(owner), policies[component_of(owner)]
        assert events <= made
        assert before < weight
    assert early or profile == "dev"
