"""With a certificate in a Secret, services speak TLS only."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from cluster.machines import Cluster
from cluster.release import PORTS, VALUES, Release
from manifests import Manifest, merged
from steno.local.health import Health, grpc_health
from waiting import eventually


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority's key and certificate."""
    folder = tmp_path_factory.mktemp("authority")
    openssl(
        *("req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=authority"),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.crt"),
    )
    return folder


@pytest.fixture(scope="module")
def private(cluster: Cluster, authority: Path) -> Iterator[Release]:
    """One pod of each service, and a certificate with the services' names."""
    release = Release(cluster, "private")
    release.make_namespace()
    cluster.apply(secret(authority, release.namespace))
    release.install(merged(VALUES, {"tls": {"existingSecret": "steno-tls"}}))
    yield release
    release.uninstall()


def test_its_own_test_passes(private: Release) -> None:
    assert "weather" in private.test()


async def test_who_trusts_the_authority_is_served_and_who_speaks_plain_is_not(
    private: Release, authority: Path
) -> None:
    trusting = grpc.ssl_channel_credentials((authority / "ca.crt").read_bytes())

    for service, address in private.addresses.items():
        assert await grpc_health(address, tls=trusting) is Health.READY, service
        assert await grpc_health(address) is Health.UNREACHABLE, service


async def test_a_renewed_certificate_is_used_and_nothing_is_restarted(
    cluster: Cluster, private: Release, authority: Path
) -> None:
    before = containers_of(private)
    renewed = secret(authority, private.namespace)

    cluster.apply(renewed)

    def is_presented() -> bool:
        """Whether each service shows the new one to who connects now."""
        shown = {
            ssl.get_server_certificate((private.host(service), port)).strip()
            for service, port in PORTS.items()
        }
        return shown == {renewed["stringData"]["tls.crt"].strip()}

    await eventually(is_presented, within=150, every=2)
    assert containers_of(private) == before


def containers_of(release: Release) -> set[str]:
    """Each container that runs; one that was started again is another."""
    return {
        status["containerID"]
        for pods in release.services().values()
        for pod in pods
        for status in pod["status"]["containerStatuses"]
    }


def secret(authority: Path, namespace: str) -> Manifest:
    """A Secret with a new certificate, as cert-manager would make it."""
    names = [
        name
        for service in PORTS
        for name in (f"steno-{service}", f"steno-{service}.{namespace}.svc.cluster.local")
    ]
    extension = authority / "names"
    extension.write_text("subjectAltName=" + ",".join(f"DNS:{name}" for name in names))
    openssl(
        *("req", "-nodes", "-subj", "/CN=steno", "-newkey", "ec"),
        *("-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-keyout", f"{authority}/tls.key", "-out", f"{authority}/tls.csr"),
    )
    openssl(
        *("x509", "-req", "-days", "2", "-in", f"{authority}/tls.csr", "-CAcreateserial"),
        *("-CA", f"{authority}/ca.crt", "-CAkey", f"{authority}/ca.key"),
        *("-extfile", str(extension), "-out", f"{authority}/tls.crt"),
    )
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "steno-tls", "namespace": namespace},
        "type": "kubernetes.io/tls",
        "stringData": {
            name: (authority / name).read_text() for name in ("tls.crt", "tls.key", "ca.crt")
        },
    }


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
