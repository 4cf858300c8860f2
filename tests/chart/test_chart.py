"""The chart, rendered for each of its profiles."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

import steno
from manifests import (
    CHART,
    EVERYTHING,
    PROFILES,
    SERVERS,
    Manifest,
    component_of,
    containers,
    merged,
    of_kind,
    of_profile,
    pods,
    render,
    texts,
)
from steno.cli.__main__ import parser
from steno.platform.server import LIVENESS
from steno.platform.settings import PostgresSettings

ROOT = CHART.parents[2]
FOREIGN = {"Certificate", "ScaledObject", "GRPCRoute", "PodMonitor", "PrometheusRule"}
"""Kinds that come with operators, whose schemas are not Kubernetes' own."""

every_profile = pytest.mark.parametrize("profile", PROFILES)


@every_profile
def test_lint_finds_nothing(profile: str) -> None:
    report = helm.lint(CHART, PROFILES[profile], strict=True)

    assert report["errors"] == []
    assert [m for m in report["messages"] if m["severity"] > 1] == []


@every_profile
@pytest.mark.parametrize("version", ["1.34", "1.37"])
def test_every_object_is_valid(profile: str, version: str) -> None:
    for manifest in of_profile(profile):
        if manifest["kind"] not in FOREIGN:
            kubernetes_validate.validate(manifest, version, strict=True)


@every_profile
def test_every_pod_keeps_the_restricted_pod_security_standard(profile: str) -> None:
    allowed_volumes = {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "image"}
    for owner, pod in pods(of_profile(profile)):
        spec = pod["spec"]
        name = owner["metadata"]["name"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        for volume in spec.get("volumes", []):
            assert set(volume) - {"name"} <= allowed_volumes, name
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert not {"privileged", "procMount", "runAsUser"} & context.keys(), name
            assert all("hostPort" not in port for port in container.get("ports", [])), name


def test_the_cluster_may_say_who_the_processes_are() -> None:
    """As OpenShift's security context constraints do."""
    nobody = dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"))
    found = [
        pod["spec"]["securityContext"]
        for _, pod in pods(render(merged(SERVERS, {"podSecurityContext": nobody})))
    ]
    other = render(merged(SERVERS, {"podSecurityContext": {"runAsUser": 2000}}))

    assert found
    assert not [context for context in found if nobody.keys() & context.keys()]
    assert all(context["runAsNonRoot"] for context in found)
    assert {pod["spec"]["securityContext"]["runAsUser"] for _, pod in pods(other)} == {2000}


@every_profile
def test_no_pod_has_a_token_of_the_cluster(profile: str) -> None:
    for _, pod in pods(of_profile(profile)):
        assert pod["spec"]["automountServiceAccountToken"] is False


@every_profile
def test_every_container_has_requests_limits_and_a_root_that_it_can_not_write(
    profile: str,
) -> None:
    for _, pod in pods(of_profile(profile)):
        for container in containers(pod):
            for bound in ("requests", "limits"):
                assert {"cpu", "memory"} <= container["resources"][bound].keys()
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


@every_profile
def test_every_container_that_stays_has_probes(profile: str) -> None:
    for manifest in of_kind(of_profile(profile), "Deployment", "StatefulSet"):
        for container in manifest["spec"]["template"]["spec"]["containers"]:
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()


@every_profile
def test_probes_ask_for_health_that_the_server_tells(profile: str) -> None:
    for manifest in of_kind(of_profile(profile), "Deployment"):
        for container in manifest["spec"]["template"]["spec"]["containers"]:
            listens = {variable["name"]: variable.get("value") for variable in container["env"]}
            # Kubelets do not speak TLS to gRPC.
            plain = "STENO_HEALTH_LISTEN" if "STENO_TLS_CERTIFICATE" in listens else "STENO_LISTEN"
            _, port = listens[plain].split(":")
            asked = {
                probe: (
                    str(container[probe]["grpc"]["port"]),
                    container[probe]["grpc"].get("service"),
                )
                for probe in ("startupProbe", "readinessProbe", "livenessProbe")
            }
            assert asked == {
                "startupProbe": (port, LIVENESS),
                "readinessProbe": (port, None),  # "", the server as a whole
                "livenessProbe": (port, LIVENESS),
            }


@every_profile
def test_every_selector_finds_pods_and_none_of_another_component(profile: str) -> None:
    manifests = of_profile(profile)
    labels = [pod["metadata"]["labels"] for _, pod in pods(manifests)]

    def found(selector: dict[str, str]) -> set[str]:
        return {
            label["app.kubernetes.io/component"]
            for label in labels
            if selector.items() <= label.items()
        }

    for manifest in of_kind(manifests, "Deployment", "StatefulSet", "PodDisruptionBudget"):
        assert found(manifest["spec"]["selector"]["matchLabels"]) == {component_of(manifest)}
    for manifest in of_kind(manifests, "Service"):
        assert found(manifest["spec"]["selector"]) == {component_of(manifest)}
    for manifest in of_kind(manifests, "NetworkPolicy"):
        only = found(manifest["spec"]["podSelector"]["matchLabels"])
        assert only <= {component_of(manifest)}


@every_profile
def test_every_service_leads_to_a_port_of_its_pods(profile: str) -> None:
    manifests = of_profile(profile)
    ports: dict[str, set[tuple[str, int]]] = {}
    for _, pod in pods(manifests):
        for container in containers(pod):
            found = {(port["name"], port["containerPort"]) for port in container.get("ports", [])}
            ports.setdefault(component_of(pod), set()).update(found)
    for service in of_kind(manifests, "Service"):
        for port in service["spec"]["ports"]:
            assert (port["targetPort"], port["port"]) in ports[component_of(service)]


@every_profile
def test_every_address_of_a_service_is_one_of_the_release(profile: str) -> None:
    manifests = of_profile(profile)
    services = {
        f"dns:///{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
        for service in of_kind(manifests, "Service")
    }
    for _, pod in pods(manifests):
        for container in containers(pod):
            for variable in container.get("env", []):
                if variable["name"].endswith("_ADDRESS"):
                    assert variable["value"] in services


@every_profile
def test_objects_have_names_of_their_own(profile: str) -> None:
    names = [(m["kind"], m["metadata"]["name"]) for m in of_profile(profile)]

    assert len(names) == len(set(names))


def processes(profile: str) -> dict[str, tuple[Any, Manifest]]:
    """The settings and the container of each process, by its component."""
    found = {}
    for manifest in of_kind(of_profile(profile), "Deployment"):
        (container,) = manifest["spec"]["template"]["spec"]["containers"]
        module = container["command"][2]
        settings = import_module(f"{module.removesuffix('.prepare')}.settings")
        kind = settings.PrepareSettings if module.endswith(".prepare") else settings.Settings
        found[component_of(manifest)] = kind, container
    assert {"upload", "prepare", "job"} < found.keys()
    return found


@every_profile
def test_every_variable_is_a_setting_of_its_process_and_every_required_one_is_set(
    profile: str,
) -> None:
    for settings, container in processes(profile).values():
        known = {f"STENO_{name.upper()}": field for name, field in settings.model_fields.items()}
        names = [variable["name"] for variable in container["env"]]
        assert len(names) == len(set(names))
        assert {name for name in names if name.startswith("STENO_")} <= known.keys()
        assert {name for name, field in known.items() if field.is_required()} <= set(names)


@every_profile
def test_processes_take_the_values_of_their_settings(profile: str) -> None:
    for settings, container in processes(profile).values():
        settings.model_validate(
            {
                variable["name"].removeprefix("STENO_").lower(): variable.get("value", "1")
                for variable in container["env"]
                if variable["name"].startswith("STENO_")
            }
        )


@every_profile
def test_calls_have_less_time_to_end_than_their_pod(profile: str) -> None:
    for manifest in of_kind(of_profile(profile), "Deployment"):
        pod = manifest["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        grace = {v["name"]: v.get("value") for v in container["env"]}[
            "STENO_SHUTDOWN_GRACE_SECONDS"
        ]
        leaving = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert int(grace) + leaving + 10 <= pod["terminationGracePeriodSeconds"]


@every_profile
def test_jobs_may_ask_for_the_models_that_the_pools_serve(profile: str) -> None:
    offered: list[str] = []
    served = set()
    for manifest in of_kind(of_profile(profile), "Deployment"):
        for container in manifest["spec"]["template"]["spec"]["containers"]:
            values = {v["name"]: v.get("value") for v in container["env"]}
            offered += (values.get("STENO_MODELS") or "").split(",")
            served.add(values.get("STENO_MODEL_NAME"))
    assert {*filter(None, offered)} == served - {None}


def test_what_runs_before_the_services_is_there() -> None:
    commands = [
        container["command"]
        for _, pod in pods(of_profile("everything"))
        for container in containers(pod)
    ]

    assert [command for command in commands if command[2:3] == ["steno.platform.migrate"]]
    assert find_spec("steno.platform.migrate")
    pulls = [command for command in commands if command[:3] == ["steno", "models", "pull"]]
    assert {command[3] for command in pulls} == {"small", "medium"}
    for program, *arguments in pulls:
        assert program == "steno"
        assert parser().parse_args(arguments).run == "models:pull"


def test_the_migration_needs_nothing_that_is_not_there_before_an_install() -> None:
    (job,) = [m for m in of_kind(of_profile("defaults"), "Job") if component_of(m) == "migrate"]
    (container,) = job["spec"]["template"]["spec"]["containers"]

    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert [v["name"] for v in container["env"]] == [
        f"STENO_{name.upper()}"
        for name, field in PostgresSettings.model_fields.items()
        if field.is_required()
    ]
    assert container["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "steno-postgres-app"


def leaves(thing: Any) -> list[str]:
    if isinstance(thing, dict):
        return [leaf for value in thing.values() for leaf in leaves(value)]
    if isinstance(thing, list):
        return [leaf for value in thing for leaf in leaves(value)]
    return [str(thing)]


def test_the_secrets_of_the_bundled_servers_are_in_their_secret_only() -> None:
    manifests = render(PROFILES["dev"])
    (secret,) = of_kind(manifests, "Secret")
    secrets = {
        secret["stringData"][f"{name}"]
        for name in ("postgres-password", "nats-password", "s3-access-key", "s3-secret-key")
    }
    assert all(len(each) >= 32 for each in secrets)

    others = [leaf for m in manifests if m["kind"] != "Secret" for leaf in leaves(m)]

    assert [leaf for leaf in others for each in secrets if each in leaf] == []


@every_profile
def test_what_is_secret_comes_from_secrets(profile: str) -> None:
    secret = {"STENO_POSTGRES_URL", "STENO_S3_ACCESS_KEY", "STENO_S3_SECRET_KEY"}
    for _, pod in pods(of_profile(profile)):
        for container in containers(pod):
            for variable in container.get("env", []):
                if variable["name"] in secret:
                    assert "secretKeyRef" in variable["valueFrom"]
    for manifest in of_kind(of_profile(profile), "ConfigMap"):
        assert not [leaf for leaf in leaves(manifest) if "secret" in leaf or "password" in leaf]


def test_an_address_of_nats_that_holds_a_secret_comes_from_one() -> None:
    (job,) = [
        m for m in of_kind(of_profile("everything"), "Deployment") if component_of(m) == "job"
    ]
    env = {v["name"]: v for v in job["spec"]["template"]["spec"]["containers"][0]["env"]}

    assert env["STENO_NATS_URL"]["valueFrom"]["secretKeyRef"] == {
        "name": "steno-nats",
        "key": "url",
    }


@pytest.mark.parametrize("missing", ["postgres", "nats", "s3"])
def test_a_server_that_nobody_named_is_asked_for(missing: str) -> None:
    values = {name: value for name, value in SERVERS.items() if name != missing}

    with pytest.raises(helm.HelmError, match=rf"{missing}\.\w+: "):
        render(values)


def test_bundled_servers_are_there_only_when_asked_for_and_the_notes_warn() -> None:
    assert of_kind(of_profile("defaults"), "StatefulSet") == []
    assert "WARNING" not in texts(SERVERS)["steno/templates/NOTES.txt"]

    assert len(of_kind(of_profile("dev"), "StatefulSet")) == 3
    assert "for trying" in texts(PROFILES["dev"])["steno/templates/NOTES.txt"]


def test_only_what_is_for_clients_is_routed() -> None:
    manifests = of_profile("everything")
    services = {
        "steno.v1.UploadService": "steno-upload",
        "steno.v1.JobService": "steno-job",
        "steno.v1.TranscriptionService": "steno-transcription",
        "steno.v1.ConcatenationService": "steno-concatenation",
    }
    (route,) = of_kind(manifests, "GRPCRoute")
    (ingress,) = of_kind(manifests, "Ingress")

    assert {
        rule["matches"][0]["method"]["service"]: rule["backendRefs"][0]["name"]
        for rule in route["spec"]["rules"]
    } == services
    assert {
        path["path"].lstrip("/"): path["backend"]["service"]["name"]
        for path in ingress["spec"]["rules"][0]["http"]["paths"]
    } == services
    assert set(services.values()) <= {m["metadata"]["name"] for m in of_kind(manifests, "Service")}


def test_a_pool_on_gpus_asks_for_them_and_runs_the_image_that_knows_them() -> None:
    (pool,) = [
        m
        for m in of_kind(of_profile("everything"), "Deployment")
        if component_of(m) == "transcription-image"
    ]
    pod = pool["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    env = {v["name"]: v.get("value") for v in container["env"]}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == int(env["STENO_GPUS"] or 0) == 2
    assert container["image"] == "registry.example.com/steno-transcription-gpu:1.2.3"
    assert pod["runtimeClassName"] == "nvidia"


def images(values: dict[str, Any]) -> dict[str, str]:
    return {
        component_of(m): m["spec"]["template"]["spec"]["containers"][0]["image"]
        for m in of_kind(render(merged(SERVERS, values)), "Deployment")
    }


def test_a_digest_takes_the_place_of_the_tag() -> None:
    one, other = f"sha256:{'0' * 64}", f"sha256:{'1' * 64}"
    pools = {"pools": {"large": {"gpus": 1}}}
    pinned = {"image": {"tag": "1", "digest": one}, "transcription": pools}

    found = images(merged(pinned, {"image": {"gpuDigest": other}}))
    assert found["upload"] == found["transcription-default"] == f"steno@{one}"
    assert found["transcription-large"] == f"steno-transcription-gpu@{other}"
    assert images(pinned)["transcription-large"] == "steno-transcription-gpu:1"


def test_room_on_the_disk_of_the_node_can_be_asked_for_and_is_for_models() -> None:
    disk = {"ephemeral-storage": "1Gi"}
    values = {
        "upload": {"resources": {"requests": disk, "limits": disk}},
        "transcription": {"pools": {"large": {"model": "large-v3"}}},
    }
    pods_of = {
        component_of(m): m["spec"]["template"]["spec"]
        for m in of_kind(render(merged(SERVERS, values)), "Deployment")
    }
    (upload,), (fetch,) = (
        pods_of["upload"]["containers"],
        pods_of["transcription-large"]["initContainers"],
    )

    for bound in ("requests", "limits"):
        assert upload["resources"][bound]["ephemeral-storage"] == "1Gi"
        assert {"cpu", "memory"} < upload["resources"][bound].keys()
    assert fetch["resources"]["requests"]["ephemeral-storage"] == "6Gi"


def test_gpus_may_be_claimed_in_place_of_counted() -> None:
    claim = {"name": "gpu", "resourceClaimTemplateName": "steno-gpu"}
    pools = {"pools": {"default": {"gpus": 1, "resourceClaims": [claim]}}}
    (pool,) = [
        m
        for m in of_kind(render(merged(SERVERS, {"transcription": pools})), "Deployment")
        if component_of(m) == "transcription-default"
    ]
    pod = pool["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    kubernetes_validate.validate(pool, "1.34", strict=True)
    assert pod["resourceClaims"] == [claim]
    assert container["resources"]["claims"] == [{"name": "gpu"}]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert container["image"].startswith("steno-transcription-gpu:")


def test_the_workers_of_a_remote_pool_know_a_server_and_no_model() -> None:
    (pool,) = [
        m
        for m in of_kind(of_profile("everything"), "Deployment")
        if component_of(m) == "transcription-remote"
    ]
    pod = pool["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    env = {v["name"]: v.get("value") or v["valueFrom"] for v in container["env"]}

    assert env["STENO_ENGINE"] == "remote"
    assert env["STENO_REMOTE_URL"] == "http://speaches.speech:8000/v1"
    assert env["STENO_REMOTE_MODEL"] == env["STENO_MODEL_NAME"] == "whisper-1"
    assert env["STENO_REMOTE_API_KEY"] == {"secretKeyRef": {"name": "speaches", "key": "api-key"}}
    assert env["STENO_REMOTE_CONCURRENCY"] == "8"
    assert "STENO_MODEL" not in env
    assert "initContainers" not in pod
    assert [m["name"] for m in container["volumeMounts"] if m["name"] == "models"] == []


def test_a_remote_pool_has_no_gpus_though_the_others_do() -> None:
    pools = {
        "poolDefaults": {"gpus": 1, "runtimeClassName": "nvidia"},
        "pools": {"remote": {"remote": {"url": "http://speech/v1", "model": "whisper-1"}}},
    }
    pods_of = {
        component_of(m): m["spec"]["template"]["spec"]
        for m in of_kind(render(merged(SERVERS, {"transcription": pools})), "Deployment")
    }
    with_gpu, remote = (pods_of[f"transcription-{name}"] for name in ("default", "remote"))

    assert "nvidia.com/gpu" in with_gpu["containers"][0]["resources"]["limits"]
    assert "nvidia.com/gpu" not in remote["containers"][0]["resources"]["limits"]
    assert remote["containers"][0]["image"] == pods_of["job"]["containers"][0]["image"]
    assert with_gpu["containers"][0]["image"] != remote["containers"][0]["image"]
    assert "runtimeClassName" not in remote


def test_workers_are_offline_and_read_models_that_others_have_fetched() -> None:
    for manifest in of_kind(of_profile("everything"), "Deployment"):
        if component_of(manifest).startswith("transcription-"):
            (container,) = manifest["spec"]["template"]["spec"]["containers"]
            env = {v["name"]: v.get("value") for v in container["env"]}
            assert env["HF_HUB_OFFLINE"] == "1"
            assert all(
                m.get("readOnly") for m in container["volumeMounts"] if m["name"] == "models"
            )


def paths(schema: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where there is an object in the values."""
    found = [path] if "properties" in schema or "patternProperties" in schema else []
    for key, inner in schema.get("properties", {}).items():
        found += paths(inner, (*path, key))
    for inner in schema.get("patternProperties", {}).values():
        found += paths(inner, (*path, "default"))
    return found


def test_an_unknown_value_is_refused_wherever_it_stands() -> None:
    with helm.Chart.load(CHART) as chart:
        assert chart.schema
        places = paths(chart.schema)
        assert len(places) > 50
        for path in places:
            values: dict[str, Any] = {"Nobody-Knows-This": 1}
            for key in reversed(path):
                values = {key: values}
            with pytest.raises(helm.HelmError, match="Nobody-Knows-This"):
                chart.validate_schema(merged(SERVERS, values))
        chart.validate_schema(merged(SERVERS, EVERYTHING))


def test_what_an_umbrella_chart_hands_down_is_passed_over() -> None:
    assert render(merged(SERVERS, {"global": {"domain": "example.com"}}))


@pytest.mark.parametrize("replicas", [0, 6])
def test_streams_are_kept_by_one_to_five_servers(replicas: int) -> None:
    with helm.Chart.load(CHART) as chart, pytest.raises(helm.HelmError, match="replicas"):
        chart.validate_schema(merged(SERVERS, {"nats": {"replicas": replicas}}))


TO_ZERO = {"type": "keda", "minReplicas": 0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"upload": {"settings": {"STENO_UPLOAD_MAX_OPEN": "many"}}},
        {"upload": {"settings": {"STENO_LISTEN": "0.0.0.0:1"}}},
        {"job": {"settings": {"STENO_MAX_BATCH": 4}}},
        {"image": {"tag": f"sha256:{'0' * 64}"}},
        {"image": {"digest": "0" * 64}},
        {"defaults": {"settings": {"STENO_LOG_LEVEL": "LOUD"}}},
        {"defaults": {"terminationGracePeriodSeconds": 15}},
        {"transcription": {"pools": {"Large": {}}}},
        {"transcription": {"defaultPool": "nobody"}},
        {"job": {"autoscaling": {"type": "keda"}}},
        {"bundled": {"enabled": True, "password": "p@ss/w#rd"}},
        {"transcription": {"pools": {"default": {"autoscaling": TO_ZERO}}}},
        {"transcription": {"pools": {"default": {"remote": {"url": "http://speech/v1"}}}}},
    ],
)
def test_a_value_that_can_not_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(helm.HelmError):
        render(merged(SERVERS, wrong))


def test_only_what_kubernetes_checks_itself_is_open() -> None:
    open_objects: list[str] = []

    def look(schema: dict[str, Any], name: str) -> None:
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            open_objects.append(name)
        for key, inner in {
            **schema.get("properties", {}),
            **schema.get("patternProperties", {}),
        }.items():
            look(inner, key)
        if "items" in schema:
            look(schema["items"], f"{name}[]")

    look(yaml.safe_load((CHART / "values.schema.json").read_text()), "")

    assert set(open_objects) == {
        "affinity",
        "annotations",
        "clients[]",
        "commonLabels",
        "extraEgress[]",
        "extraEnv[]",
        "extraObjects[]",
        "extraVolumeMounts[]",
        "extraVolumes[]",
        "global",
        "issuerRef",
        "labels",
        "monitoring[]",
        "nodeSelector",
        "parentRefs[]",
        "peers[]",
        "podAnnotations",
        "podLabels",
        "prometheusAuthenticationRef",
        "resourceClaims[]",
        "tolerations[]",
    }


def test_schema_and_readme_of_the_chart_are_those_of_its_values() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "tools" / "chart.py", "--check"], capture_output=True
    )

    assert checked.returncode == 0, checked.stderr.decode()


def test_every_value_says_what_it_is_and_what_follows_from_it() -> None:
    def silent(schema: dict[str, Any], path: str) -> list[str]:
        least = 10 if schema.get("properties") else 25
        own = [] if len(schema["description"]) >= least else [path]
        return own + [
            each
            for key, inner in schema.get("properties", {}).items()
            for each in silent(inner, f"{path}.{key}")
        ]

    schema = yaml.safe_load((CHART / "values.schema.json").read_text())

    assert silent({**schema, "description": "all of them"}, "") == []


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert chart["appVersion"] == chart["version"] == steno.__version__


def test_the_recording_of_the_helm_test_has_the_words_it_looks_for() -> None:
    (pod,) = of_kind(of_profile("defaults"), "Pod")
    command = pod["spec"]["containers"][0]["command"][-1]
    recording = Path(command.split("< ")[1].split()[0]).name
    said = (ROOT / "examples" / "audio" / recording).with_suffix(".txt").read_text().lower()

    words = command.split("for word in ")[1].split(";")[0].split()

    assert len(words) >= 3
    assert all(word in said for word in words)


def test_a_manifest_is_the_same_however_often_it_is_rendered() -> None:
    def named(manifests: list[Manifest]) -> dict[tuple[str, str], Manifest]:
        return {(m["kind"], m["metadata"]["name"]): m for m in manifests}

    assert named(render(PROFILES["everything"])) == named(of_profile("everything"))
