"""The pods that come and go with a release, and where models are fetched from."""

from __future__ import annotations

from typing import Any

import pytest

from manifests import (
    PROFILES,
    SERVERS,
    Manifest,
    Values,
    component_of,
    containers,
    merged,
    of_kind,
    pods,
    render,
)

FETCHED: Values = {
    "transcription": {
        "pools": {
            "default": {
                "model": "small",
                "modelStore": {"type": "volume", "existingClaim": "models"},
            },
            "large": {"model": "large-v3", "modelStore": {"type": "download"}},
        }
    }
}
HOOKS = {"migrate", "fetch", "test"}


def pods_of(values: Values) -> dict[str, Manifest]:
    return {component_of(pod): pod for _, pod in pods(render(merged(SERVERS, FETCHED, values)))}


def test_hooks_run_where_they_are_told_to_and_only_they() -> None:
    place: dict[str, Any] = {
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    }
    notes = {"sidecar.istio.io/inject": "false"}
    found = pods_of({"hooks": {**place, "podAnnotations": notes}})

    for name in HOOKS:
        spec = found[name]["spec"]
        assert {key: spec[key] for key in place} == place
        assert notes.items() <= found[name]["metadata"]["annotations"].items()
    for name in found.keys() - HOOKS:
        assert not place.keys() & found[name]["spec"].keys()


def fetching(values: Values) -> list[dict[str, Any]]:
    return [
        {variable["name"]: variable for variable in container["env"]}
        for pod in pods_of(values).values()
        for container in containers(pod)
        if container["name"] == "fetch"
    ]


def test_models_are_fetched_from_the_hub_that_is_named_with_its_token() -> None:
    hub = {"endpoint": "https://hub.example.com", "existingSecret": "hub"}
    known = fetching({"transcription": {"modelHub": hub}})

    assert len(known) == 2
    for each in known:
        assert each["HF_ENDPOINT"]["value"] == "https://hub.example.com"
        assert each["HF_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert all({"HF_ENDPOINT", "HF_TOKEN"}.isdisjoint(each) for each in fetching({}))


def test_only_who_fetches_has_the_token() -> None:
    hub: Values = {"transcription": {"modelHub": {"existingSecret": "hub"}}}
    for pod in pods_of(hub).values():
        for container in containers(pod):
            if container["name"] != "fetch":
                assert "HF_TOKEN" not in {each["name"] for each in container.get("env", [])}


@pytest.mark.parametrize(
    ("endpoint", "port"), [("", 443), ("http://mirror", 80), ("http://mirror:8080/hub", 8080)]
)
def test_the_way_to_the_hub_is_at_the_port_of_its_address(endpoint: str, port: int) -> None:
    hub: Values = {"transcription": {"modelHub": {"endpoint": endpoint}}}
    (policy,) = [
        each
        for each in of_kind(render(merged(PROFILES["defaults"], hub)), "NetworkPolicy")
        if component_of(each) == "fetch"
    ]

    assert policy["spec"]["egress"][-1] == {"ports": [{"port": port}]}
