"""TLS in the chart: who shows a certificate, who checks it, whose names it has."""

from __future__ import annotations

from typing import Any

import pytest

from manifests import (
    NAMESPACE,
    PROFILES,
    Manifest,
    component_of,
    merged,
    of_kind,
    of_profile,
    pods,
    render,
)

OWN = merged(PROFILES["defaults"], {"tls": {"existingSecret": "own"}})

TLS = {"everything": of_profile("everything"), "a Secret of one's own": render(OWN)}

with_tls = pytest.mark.parametrize("manifests", TLS.values(), ids=TLS)


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container.get("env", [])}


def services(manifests: list[Manifest]) -> list[dict[str, Any]]:
    return [m["spec"]["template"]["spec"] for m in of_kind(manifests, "Deployment")]


def secret_of(pod: dict[str, Any]) -> dict[str, Any]:
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "tls"]
    secret: dict[str, Any] = volume["secret"]
    return secret


@with_tls
def test_every_service_shows_a_certificate_and_checks_those_of_others(
    manifests: list[Manifest],
) -> None:
    for pod in services(manifests):
        (container,) = pod["containers"]
        (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "tls"]
        read = {k: v for k, v in variables(container).items() if k.startswith("STENO_TLS_")}
        assert read == {
            "STENO_TLS_CERTIFICATE": f"{mount['mountPath']}/tls.crt",
            "STENO_TLS_KEY": f"{mount['mountPath']}/tls.key",
            "STENO_TLS_CA": f"{mount['mountPath']}/ca.crt",
        }
    ports = [p for each in of_kind(manifests, "Service") for p in each["spec"]["ports"]]
    assert {port["appProtocol"] for port in ports if port["name"] == "grpc"} == {"https"}


@with_tls
def test_the_test_checks_certificates_and_has_no_key(manifests: list[Manifest]) -> None:
    (pod,) = [pod["spec"] for _, pod in pods(manifests) if component_of(pod) == "test"]

    assert [item["key"] for item in secret_of(pod)["items"]] == ["ca.crt"]
    assert variables(pod["containers"][0])["STENO_TLS_CA"].endswith("/ca.crt")


def test_the_certificate_has_every_name_that_services_and_clients_ask_for() -> None:
    manifests = TLS["everything"]
    (certificate,) = of_kind(manifests, "Certificate")
    asked = {
        value.removeprefix("dns:///").partition(":")[0]
        for pod in services(manifests)
        for name, value in variables(pod["containers"][0]).items()
        if name.endswith("_ADDRESS")
    }

    assert len(asked) == 3
    for domain in ("", f".{NAMESPACE}.svc", f".{NAMESPACE}.svc.cluster.local"):
        assert {f"{name}{domain}" for name in asked} <= {*certificate["spec"]["dnsNames"]}
    for pod in services(manifests):
        assert secret_of(pod)["secretName"] == certificate["spec"]["secretName"]


def test_the_certificate_has_the_domain_of_the_cluster() -> None:
    other = {"clusterDomain": "k8s.example.com"}
    (certificate,) = of_kind(render(merged(PROFILES["everything"], other)), "Certificate")

    assert f"steno-upload.{NAMESPACE}.svc.k8s.example.com" in certificate["spec"]["dnsNames"]


def test_a_secret_of_one_s_own_takes_the_place_of_the_certificate() -> None:
    manager = {"certManager": {"enabled": True, "issuerRef": {"name": "internal"}}}
    both = render(merged(OWN, {"tls": manager}))

    assert of_kind(both, "Certificate") == []
    assert {secret_of(pod)["secretName"] for pod in services(both)} == {"own"}


def test_without_tls_nobody_asks_for_it() -> None:
    for pod in services(of_profile("production")):
        (container,) = pod["containers"]
        assert not [name for name in variables(container) if "TLS" in name or "HEALTH" in name]
        assert "tls" not in [volume["name"] for volume in pod["volumes"]]
