"""What the chart makes of values, as Helm's own engine renders it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

CHART = Path(__file__).parents[1] / "deploy" / "helm" / "steno"
NAMESPACE = "speech"

Values = dict[str, Any]
Manifest = dict[str, Any]

SERVERS: Values = {
    "postgres": {"existingSecret": "steno-postgres-app"},
    "nats": {"url": "nats://nats:4222"},
    "s3": {"endpoint": "https://s3.example.com", "existingSecret": "steno-s3"},
}
"""The least that must be said."""

EVERYTHING: Values = {
    # All that is optional, at once.
    "image": {"registry": "registry.example.com", "tag": "1.2.3", "pullSecrets": ["login"]},
    "serviceAccountName": "steno",
    "serviceAccount": {"create": True, "annotations": {"a": "b"}},
    "nats": {"url": "", "existingSecret": "steno-nats"},
    "defaults": {
        "settings": {"STENO_OTLP_ENDPOINT": "http://collector:4317"},
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
        "priorityClassName": "high",
        "affinity": {"nodeAffinity": {}},
        "rollingUpdate": {"maxSurge": "25%"},
    },
    "upload": {
        "settings": {"STENO_UPLOAD_MAX_BYTES": 107374182400},
        "autoscaling": {"type": "hpa"},
    },
    "prepare": {"autoscaling": {"type": "keda"}},
    "concatenation": {"enabled": True},
    "transcription": {
        "pools": {
            "default": {"autoscaling": {"type": "hpa"}},
            "remote": {
                "remote": {
                    "url": "http://speaches.speech:8000/v1",
                    "model": "whisper-1",
                    "existingSecret": "speaches",
                    "port": 8000,
                    "peers": [{"namespaceSelector": {"matchLabels": {"name": "speech"}}}],
                },
                "settings": {"STENO_REMOTE_CONCURRENCY": 8},
            },
            "fetched": {"model": "small", "modelStore": {"type": "download"}},
            "volume": {
                "model": "medium",
                "modelStore": {"type": "volume", "existingClaim": "models"},
                "autoscaling": {"type": "keda", "minReplicas": 0},
            },
            "image": {
                "model": "/models/large",
                "modelName": "large-v3",
                "modelStore": {"type": "image", "image": "models/large-v3:1"},
                "gpus": 2,
                "runtimeClassName": "nvidia",
                "settings": {"STENO_CPU_THREADS": 4, "STENO_BATCH_WINDOW_MS": 2.5},
            },
        }
    },
    "tls": {"certManager": {"enabled": True, "issuerRef": {"kind": "Issuer", "name": "internal"}}},
    "grpcRoute": {
        "enabled": True,
        "parentRefs": [{"name": "gateway"}],
        "hostnames": ["steno.example.com"],
    },
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "annotations": {"a": "b"},
        "host": "steno.example.com",
        "tlsSecret": "tls",
    },
    "monitoring": {
        "podMonitors": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRules": {"enabled": True},
        "dashboards": {"enabled": True},
        "prometheusAddress": "http://prometheus:9090",
    },
    "networkPolicy": {"postgres": {"peers": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}},
}


def merged(*layers: Values) -> Values:
    """Values files one upon the other, as Helm merges them."""
    whole: Values = {}
    for layer in layers:
        for key, value in layer.items():
            below = whole.get(key)
            if isinstance(value, dict) and isinstance(below, dict):
                whole[key] = merged(below, value)
            else:
                whole[key] = deepcopy(value)
    return whole


def profile(name: str) -> Values:
    """Values of a file beside the chart's own."""
    values: Values = yaml.safe_load((CHART / f"values-{name}.yaml").read_text())
    return values


PROFILES: dict[str, Values] = {
    "defaults": SERVERS,
    "dev": profile("dev"),
    "gpu": merged(profile("gpu"), SERVERS),
    "production": profile("production"),
    "production on GPUs": merged(profile("gpu"), profile("production")),
    "everything": merged(SERVERS, EVERYTHING),
}


def documents(text: str) -> list[Any]:
    """What a stream of YAML holds, by libyaml: a tenth of the time of PyYAML's own reader."""
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]


def texts(values: Values) -> dict[str, str]:
    """What each template says."""
    with helm.Chart.load(CHART) as chart:
        return chart.render(values, name="steno", namespace=NAMESPACE)


def render(values: Values) -> list[Manifest]:
    """All objects."""
    return [
        manifest
        for name, text in texts(values).items()
        if not name.endswith(".txt")
        for manifest in documents(text)
    ]


@cache
def of_profile(name: str) -> list[Manifest]:
    """All objects of a profile. Not to be changed."""
    return render(PROFILES[name])


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def pods(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Each object that makes pods, and its pod template."""
    for manifest in manifests:
        if manifest["kind"] == "Pod":
            yield manifest, manifest
        elif manifest["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield manifest, manifest["spec"]["template"]


def component_of(thing: Manifest) -> str:
    return str(thing["metadata"]["labels"]["app.kubernetes.io/component"])


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
