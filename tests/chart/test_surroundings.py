"""What a cluster adds to all pods of Steno: authorities, variables, volumes, ways out."""

from __future__ import annotations

from typing import Any

import helm_python as helm
import pytest

from manifests import (
    CHART,
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

AUTHORITIES = {"SSL_CERT_FILE", "PGSSLROOTCERT", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"}


def own_pods(values: Values) -> dict[str, Manifest]:
    """The pods of Steno itself, by component."""
    return {
        component_of(pod): pod
        for owner, pod in pods(render(values))
        if owner["kind"] != "StatefulSet"
    }


def variables(container: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each for each in container.get("env", [])}


def mounts(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["mountPath"] for each in container["volumeMounts"]}


def volume(pod: Manifest, name: str) -> dict[str, Any]:
    (found,) = [each for each in pod["spec"]["volumes"] if each["name"] == name]
    assert isinstance(found, dict)
    return found


EVERY_PROFILE = {name: PROFILES[name] for name in ("dev", "everything")}
every_profile = pytest.mark.parametrize("values", EVERY_PROFILE.values(), ids=EVERY_PROFILE)


@every_profile
def test_every_container_believes_the_authorities_of_the_cluster(values: Values) -> None:
    own = {"trustedCA": {"configMap": "bundle", "key": "bundle.pem"}}
    found = own_pods(merged(values, own))

    assert {"migrate", "test", "upload"} <= found.keys()
    for pod in found.values():
        files = volume(pod, "ca")["configMap"]
        assert files == {"name": "bundle", "items": [{"key": "bundle.pem", "path": "ca.crt"}]}
        for container in containers(pod):
            file = f"{mounts(container)['ca']}/ca.crt"
            known = variables(container)
            assert {name for name in AUTHORITIES if known[name]["value"] == file} == AUTHORITIES


@every_profile
def test_every_container_has_what_is_extra(values: Values) -> None:
    token = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "token"}}}
    cache = {"name": "cache", "emptyDir": {"sizeLimit": "1Gi"}}
    extra = {
        "extraEnv": [token, {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "extraVolumes": [cache],
        "extraVolumeMounts": [{"name": "cache", "mountPath": "/cache"}],
    }
    found = own_pods(merged(values, extra))

    assert {"migrate", "test", "upload"} <= found.keys()
    for pod in found.values():
        assert volume(pod, "cache") == cache
        for container in containers(pod):
            assert variables(container)["TOKEN"] == token
            assert mounts(container)["cache"] == "/cache"


def test_a_setting_among_the_extra_variables_is_refused() -> None:
    with helm.Chart.load(CHART) as chart, pytest.raises(helm.HelmError, match="extraEnv"):
        chart.validate_schema(
            merged(SERVERS, {"extraEnv": [{"name": "STENO_LOG_LEVEL", "value": "DEBUG"}]})
        )


def test_nats_is_shown_a_certificate_by_whoever_speaks_to_it() -> None:
    found = own_pods(merged(SERVERS, {"nats": {"tlsSecret": "client"}}))

    for name in ("upload", "prepare", "job", "transcription-default", "concatenation"):
        (container,) = found[name]["spec"]["containers"]
        folder = mounts(container)["nats-tls"]
        known = variables(container)
        assert known["STENO_NATS_TLS_CERTIFICATE"]["value"] == f"{folder}/tls.crt"
        assert known["STENO_NATS_TLS_KEY"]["value"] == f"{folder}/tls.key"
        assert volume(found[name], "nats-tls")["secret"]["secretName"] == "client"


def test_every_pod_may_go_the_further_ways_out() -> None:
    proxy = {
        "to": [{"podSelector": {"matchLabels": {"app": "proxy"}}}],
        "ports": [{"port": 3128}],
    }
    values = merged(PROFILES["everything"], {"networkPolicy": {"extraEgress": [proxy]}})

    policies = of_kind(render(values), "NetworkPolicy")
    assert {"migrate", "fetch", "test"} < {component_of(each) for each in policies}
    assert all(proxy in each["spec"]["egress"] for each in policies)


@every_profile
def test_all_objects_have_the_common_labels(values: Values) -> None:
    team = {"team": "speech"}
    manifests = render(merged(values, {"commonLabels": team}))

    for manifest in [*manifests, *(pod for _, pod in pods(manifests))]:
        assert team.items() <= manifest["metadata"]["labels"].items()
    for manifest in of_kind(manifests, "Deployment", "Service"):
        assert "team" not in str(manifest["spec"]["selector"])


def test_a_release_may_have_further_objects() -> None:
    further = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "{{ .Release.Name }}-further"},
        "data": {"a": "b"},
    }
    found = render(merged(SERVERS, {"extraObjects": [further]}))

    (added,) = of_kind(found, "ConfigMap")
    assert added == further | {"metadata": {"name": "steno-further"}}


def test_what_decodes_recordings_may_have_users_of_its_own() -> None:
    found = own_pods(merged(SERVERS, {"prepare": {"hostUsers": False}}))

    assert found["prepare"]["spec"]["hostUsers"] is False
    assert "hostUsers" not in found["upload"]["spec"]
