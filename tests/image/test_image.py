"""The image runs as the chart asks for: not as root, read-only, with limits; and it transcribes."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from containers import Containers, podman
from manifests import component_of, merged, of_kind, of_profile, pods, profile, render
from steno.local.health import Health, grpc_health
from steno.local.ports import free_port
from steno.local.servers import LocalServers
from waiting import eventually

MANIFESTS = render(merged(profile("dev"), {"defaults": {"settings": {"STENO_LOG_FORMAT": "json"}}}))
PODS = {component_of(pod): pod for owner, pod in pods(MANIFESTS) if owner["kind"] != "StatefulSet"}
SERVICES = ("upload", "prepare", "job", "transcription-default", "concatenation")

pytestmark = pytest.mark.timeout(3000)


@pytest.fixture
def values(servers: LocalServers) -> dict[str, str]:
    """What only a cluster would know: addresses and secrets, here of servers on this machine."""
    with psycopg.connect(servers.postgres.url, autocommit=True) as db:
        db.execute("DROP DATABASE IF EXISTS image WITH (FORCE)")
        db.execute("CREATE DATABASE image")
    url = servers.postgres.url.rpartition("/")[0] + "/image"
    return servers.environment | {"STENO_POSTGRES_URL": url}


async def test_all_services_run_and_a_recording_becomes_text(
    values: dict[str, str], run_containers: Containers
) -> None:
    addresses = {component: f"127.0.0.1:{free_port()}" for component in SERVICES}
    values = values | {
        "STENO_UPLOAD_ADDRESS": addresses["upload"],
        "STENO_JOB_ADDRESS": addresses["job"],
        "STENO_TRANSCRIPTION_ADDRESS": addresses["transcription-default"],
    }

    printed = run_containers.run(PODS["migrate"], values)
    assert "schema job is up to date" in printed

    names = {}
    for component in SERVICES:
        pod = PODS[component]
        pod["spec"]["containers"][0]["env"] += [{"name": "STENO_METRICS_LISTEN", "value": ""}]
        own = {"STENO_LISTEN": addresses[component]}
        names[component] = run_containers.start(pod, values | own)

    def serves(component: str) -> Callable[[], object]:
        async def ready() -> bool:
            assert run_containers.state(names[component]).startswith("running"), (
                run_containers.logs(names[component])
            )
            return await grpc_health(addresses[component]) is Health.READY

        return ready

    for component in SERVICES:
        await eventually(serves(component), within=180)

    assert "Monday" in run_containers.run(PODS["test"], values)

    for component, name in names.items():
        grace = PODS[component]["spec"]["terminationGracePeriodSeconds"]
        assert run_containers.stop(name, grace) == "exited 0", run_containers.logs(name)
        # Each wall around the decoder stands in a container, too.
        assert "runs without" not in run_containers.logs(name)


def test_it_holds_no_compiler_no_cache_and_nobody_is_root(run_containers: Containers) -> None:
    pod = {**PODS["migrate"]}
    (container,) = pod["spec"]["containers"]
    script = """
        id -u
        command -v gcc cc g++ pip pip3 || true
        find /var/lib/apt/lists /var/cache/apt /root/.cache -type f -size +64k 2>/dev/null || true
        touch /opt/steno/new /new 2>/dev/null && echo written || true
    """
    looking = {**container, "command": ["sh", "-c", script], "env": []}

    printed = run_containers.run({"spec": {**pod["spec"], "containers": [looking]}}, {})

    assert printed.split() == ["10001"]


def test_the_recording_of_helm_test_is_in_the_image(run_containers: Containers) -> None:
    pod = PODS["test"]
    (container,) = pod["spec"]["containers"]
    looking = {**container, "command": ["test", "-s", "/usr/share/steno/forecast.opus"], "env": []}

    run_containers.run({"spec": {**pod["spec"], "containers": [looking]}}, {})


async def test_the_whole_platform_runs_in_one_container(local_platform: str) -> None:
    await eventually(lambda: "Ctrl-C stops it" in podman("logs", local_platform), within=180)

    printed = podman(
        "exec", local_platform, "steno", "transcribe", "/usr/share/steno/forecast.opus"
    )

    assert "forecast" in printed
    podman("stop", "--time=30", local_platform)
    assert podman("inspect", "--format={{.State.ExitCode}}", local_platform).strip() == "0"


def test_what_the_chart_starts_is_what_was_run() -> None:
    """Or else a workload that was added would not be tried."""
    started = {component_of(m) for m in of_kind(of_profile("dev"), "Deployment")}

    assert started == set(SERVICES)
