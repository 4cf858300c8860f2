"""The chart on a cluster as it comes out of the box, and what an operator does first."""

from __future__ import annotations

import json

from cluster.machines import Cluster
from cluster.release import PORTS, Release
from platform_client import EXAMPLES, Client


def test_two_nodes_are_ready(cluster: Cluster) -> None:
    cluster.kubectl("wait", "node", "--all", "--for=condition=Ready", "--timeout=60s")

    assert [node["metadata"]["name"] for node in cluster.objects("nodes")] == ["node1", "node2"]


def test_helm_installs_it_where_pod_security_is_restricted_and_its_own_test_passes(
    steno: Release,
) -> None:
    printed = steno.test()

    assert "Phase:          Succeeded" in printed
    assert "weather" in printed


def test_the_pods_of_each_service_are_on_different_nodes(steno: Release) -> None:
    nodes = {
        component: sorted(pod["spec"]["nodeName"] for pod in pods)
        for component, pods in steno.services().items()
    }

    assert len(nodes) == 5
    assert all(each == ["node1", "node2"] for each in nodes.values()), nodes


def test_each_wall_around_the_decoder_stands(steno: Release) -> None:
    logs = steno.kubectl("logs", "--selector=app.kubernetes.io/component=prepare", "--tail=-1")

    assert logs
    assert "runs without" not in logs


async def test_a_recording_becomes_text_through_forwarded_ports(
    cluster: Cluster, steno: Release
) -> None:
    """As README's first steps have it: nothing is open to the outside."""
    data = (EXAMPLES / "forecast.opus").read_bytes()

    with (
        cluster.forwarded(steno.namespace, "service/steno-s3", 8333, at=8333),
        cluster.forwarded(steno.namespace, "service/steno-upload", PORTS["upload"]) as upload,
        cluster.forwarded(steno.namespace, "service/steno-job", PORTS["job"]) as job,
    ):
        # The other two are not called.
        addresses = steno.addresses | {"upload": upload, "job": job}
        async with Client(addresses) as client:
            transcript = await client.transcribe("forecast.opus", data)

    text = " ".join(segment.text for segment in transcript.segments)
    assert "weather" in text.lower()


def test_a_tool_that_knows_nothing_of_steno_finds_its_services_and_calls_them(
    cluster: Cluster, steno: Release
) -> None:
    with cluster.forwarded(steno.namespace, "service/steno-job", PORTS["job"]) as job:
        services = cluster.command("grpcurl", "-plaintext", job, "list")
        listed = cluster.command("grpcurl", "-plaintext", job, "steno.v1.JobService/ListJobs")

    assert "steno.v1.JobService" in services.split()
    assert json.loads(listed)["jobs"]
