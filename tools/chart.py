"""Writes the chart's values.schema.json and the table in its README from values.yaml.

Texts are the comments of values.yaml, types those of its defaults, and the settings of the services
come from the services themselves. `python tools/chart.py` writes; `--check` only compares.
"""

from __future__ import annotations

import json
import re
import sys
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from configuration import SETTINGS

from steno.platform.settings import ProcessSettings

CHART = Path(__file__).parent.parent / "deploy" / "helm" / "steno"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"

Schema = dict[str, Any]
Comments = dict[str, str]

STRING: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
STRINGS: Schema = {"type": "array", "items": STRING}
STRING_MAP: Schema = {"type": "object", "additionalProperties": STRING}
QUANTITY: Schema = {"type": ["string", "number"]}
DIGEST: Schema = {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}
SHARE: Schema = {"type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+%$"}
KUBERNETES: Schema = {"type": "object"}
"""What Kubernetes, or another chart, checks itself."""
KUBERNETES_LIST: Schema = {"type": "array", "items": KUBERNETES}

TYPES: dict[str, Schema] = {
    # The first pattern that fits a value's path; what fits none has the type of its default.
    "global": KUBERNETES,
    "*.requests.*": QUANTITY,
    "*.limits.*": QUANTITY,
    "*.sizeLimit": QUANTITY,
    "*.storageSize": QUANTITY,
    "*.maxSurge": SHARE,
    "*.maxUnavailable": SHARE,
    "*.remote.port": {"type": "integer", "minimum": 0, "maximum": 65535},
    "*.port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "nats.replicas": {"type": "integer", "minimum": 1, "maximum": 5},
    "*.autoscaling.type": {"enum": ["none", "hpa", "keda"]},
    "*.autoscaling.maxReplicas": {"type": "integer", "minimum": 1},
    "*.autoscaling.queuedPerReplica": {"type": "number", "exclusiveMinimum": 0},
    "*.terminationGracePeriodSeconds": {"type": "integer", "minimum": 20},
    "*.modelStore.type": {"enum": ["download", "volume", "image"]},
    # It becomes a part of addresses.
    "bundled.password": {"type": "string", "pattern": "^[A-Za-z0-9._~-]*$"},
    "image.tag": {"type": "string", "pattern": "^[A-Za-z0-9_.-]*$"},
    "image.digest": DIGEST,
    "image.gpuDigest": DIGEST,
    "podSecurityContext.*": {"type": ["integer", "null"], "minimum": 1},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "image.pullSecrets": STRINGS,
    "*.hostnames": STRINGS,
    "*.topologySpreadKeys": STRINGS,
    "*.topologySpreadWhenUnsatisfiable": {"enum": ["ScheduleAnyway", "DoNotSchedule"]},
    "commonLabels": STRING_MAP,
    "extraObjects": KUBERNETES_LIST,
    "*.nodeSelector": STRING_MAP,
    "*.podAnnotations": STRING_MAP,
    "*.podLabels": STRING_MAP,
    "*.annotations": STRING_MAP,
    "*.labels": STRING_MAP,
    "*.affinity": KUBERNETES,
    "*.tolerations": KUBERNETES_LIST,
    "*.parentRefs": KUBERNETES_LIST,
    "*.resourceClaims": KUBERNETES_LIST,
    "*.issuerRef": KUBERNETES,
    "*.prometheusAuthenticationRef": KUBERNETES,
    "*.peers": KUBERNETES_LIST,
    "extraEnv": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"name": {"type": "string", "not": {"pattern": "^STENO_"}}},
            "required": ["name"],
        },
    },
    "extraVolumes": KUBERNETES_LIST,
    "extraVolumeMounts": KUBERNETES_LIST,
    "*.extraEgress": KUBERNETES_LIST,
    "networkPolicy.clients": KUBERNETES_LIST,
    "networkPolicy.monitoring": KUBERNETES_LIST,
}

WORKLOADS = {
    # What `defaults` are the defaults of, and whose settings it takes.
    "upload": "upload",
    "prepare": "prepare",
    "job": "job",
    "concatenation": "concatenation",
    "transcription.poolDefaults": "transcription",
}

OF_THE_CHART = re.compile(
    "LISTEN|METRICS_LISTEN|HEALTH_LISTEN|TLS_.*|SHUTDOWN_GRACE_SECONDS|POSTGRES_.*|NATS_.*|S3_.*|"
    "(UPLOAD|JOB|TRANSCRIPTION)_ADDRESS|MODELS|MODEL|MODEL_NAME|MODEL_DIR|DEVICE|GPUS|COMPUTE_TYPE|WORKER_ID|"
    "ENGINE|REMOTE_URL|REMOTE_MODEL|REMOTE_API_KEY"
)
"""Settings that other values say."""


def comments_of(text: str) -> Comments:
    """The comment above each key, by the key's path."""
    comments: Comments = {}
    path: list[str] = []
    above: list[str] = []
    for line in text.splitlines():
        if comment := re.fullmatch(r" *# ?(.*)", line):
            above.append(comment[1])
        elif key := re.match(r"( *)([\w.-]+):", line):
            path[len(key[1]) // 2 :] = [key[2]]
            comments[".".join(path)] = " ".join(above)
            above = []
        else:
            above = []
    return comments


def settings_of(process: str | None) -> Schema:
    """What `settings` of a process may hold; None: what all processes have."""
    model = ProcessSettings
    if process in SETTINGS:
        module, name = SETTINGS[process].split(":")
        model = getattr(import_module(module), name)
    known = model.model_json_schema()["properties"]
    return closed(
        {
            f"STENO_{field.upper()}": {
                key: " ".join(value.split()) if key == "description" else value
                for key, value in schema.items()
                if key not in ("title", "default", "format", "writeOnly")
            }
            for field, schema in known.items()
            if not OF_THE_CHART.fullmatch(field.upper())
        }
    )


def closed(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


class Writer:
    """Makes a schema of the values."""

    def __init__(self, values: dict[str, Any], comments: Comments) -> None:
        self._values = values
        self._comments = comments

    def schema(self) -> Schema:
        top = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Steno's values"}
        return top | self._object("", self._values)

    def _object(self, path: str, values: dict[str, Any]) -> Schema:
        inner = {
            key: self._described(f"{path}.{key}".lstrip("."), value)
            for key, value in values.items()
        }
        if path.endswith((".requests", ".limits")):
            text = (
                "Bytes of the node's disk: logs, and what is written beside volumes of one's own."
            )
            inner["ephemeral-storage"] = {"description": text, **QUANTITY}
        return closed(inner)

    def _described(self, path: str, value: Any) -> Schema:
        return {"description": self._comments[path], **self._of(path, value)}

    def _of(self, path: str, value: Any) -> Schema:
        for pattern, schema in TYPES.items():
            if fnmatch(path, pattern):
                return schema
        if path in WORKLOADS:
            return self._workload(path, value)
        if path == "transcription.pools":
            pool = self._of(
                "transcription.poolDefaults", self._values["transcription"]["poolDefaults"]
            )
            names = {"^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$": {**pool, "type": ["object", "null"]}}
            return {"type": "object", "patternProperties": names, "additionalProperties": False}
        if path == "defaults":
            return closed(self._defaults(None))
        if isinstance(value, dict) and value:
            return self._object(path, value)
        if isinstance(value, bool):
            return {"type": "boolean"}
        if isinstance(value, int):
            return COUNT
        if isinstance(value, str):
            return STRING
        raise SystemExit(f"values.yaml: {path}: say its type in tools/chart.py")

    def _defaults(self, process: str | None) -> dict[str, Schema]:
        defaults = self._values["defaults"]
        inner = {
            k: self._described(f"defaults.{k}", v) for k, v in defaults.items() if k != "settings"
        }
        text = {"description": self._comments["defaults.settings"]}
        return inner | {"settings": text | settings_of(process)}

    def _workload(self, path: str, value: dict[str, Any]) -> Schema:
        shared = self._defaults(WORKLOADS[path])
        own = {k: self._described(f"{path}.{k}", v) for k, v in value.items() if k not in shared}
        return closed(own | shared)


def rows(values: dict[str, Any], comments: Comments, path: str = "") -> list[str]:
    """A row for each value that holds no others, and for each that has something to say."""
    found = []
    for key, value in values.items():
        here = f"{path}.{key}".lstrip(".")
        text = comments[here].replace("|", "\\|")
        if isinstance(value, dict) and value:
            found.append(f"| **`{here}`** | | {text} |")
            found += rows(value, comments, here)
        else:
            default = json.dumps(value)
            found.append(f"| `{here}` | `{default}` | {text} |")
    return found


def main() -> None:
    text = (CHART / "values.yaml").read_text()
    values, comments = yaml.safe_load(text), comments_of(text)
    schema = json.dumps(Writer(values, comments).schema(), indent=2) + "\n"
    table = "\n".join(
        ["| value | default | meaning |", "| --- | --- | --- |", *rows(values, comments)]
    )
    readme = re.sub(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}",
        lambda _: f"{BEGIN}\n{table}\n{END}",
        (CHART / "README.md").read_text(),
        flags=re.DOTALL,
    )
    for name, new in {"values.schema.json": schema, "README.md": readme}.items():
        file = CHART / name
        if "--check" not in sys.argv:
            file.write_text(new)
        elif not file.exists() or file.read_text() != new:
            sys.exit(f"{name} is stale: run python tools/chart.py")


if __name__ == "__main__":
    main()
