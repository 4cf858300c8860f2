"""Alerts, dashboards and the document of metrics speak of metrics that there are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifests import CHART, PROFILES, merged, of_kind, of_profile, render

ROOT = CHART.parents[2]
ALERTS = CHART / "files" / "alerts.yaml"
DASHBOARDS = [
    CHART / "dashboards" / f"{name}.json" for name in ("overview", "transcription", "live")
]
VOLUME = {"kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"}
FOREIGN = {"up", "process_start_time_seconds", "process_resident_memory_bytes"} | VOLUME
"""What Prometheus and its client libraries have for every process, and kubelets for volumes."""

PROMTOOL = shutil.which("promtool", path=f"{ROOT / '.tools'}{os.pathsep}{os.environ['PATH']}")

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None,
    reason="there is no promtool (make promtool builds it with go; or Debian's package prometheus)",
)


def promtool(*arguments: str | Path) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def known_labels() -> dict[str, set[str]]:
    """Labels of each name that a query may use, as docs/metrics.md has them."""
    known = {name: set[str]() for name in FOREIGN}
    text = (ROOT / "docs" / "metrics.md").read_text()
    for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", text, re.MULTILINE):
        own = set(re.findall(r"\w+", labels))
        for suffix in ("_bucket", "_sum", "_count") if kind == "histogram" else ("",):
            known[name + suffix] = own | ({"le"} if suffix == "_bucket" else set())
    return known


TARGET_LABELS = {"namespace", "pod", "app_kubernetes_io_name", "app_kubernetes_io_component"}
"""What the PodMonitor adds."""


def check_names(query: str, known: dict[str, set[str]]) -> None:
    """Asserts that a query names metrics there are, with labels they have."""
    bare = re.sub(r'"[^"]*"', '""', query)
    names = re.findall(
        r"\b(?:steno|grpc|process|kubelet)_\w+|\bup\b", re.sub(r"\{.*?\}|by \(.*?\)", "", bare)
    )
    assert names, query
    assert set(names) <= known.keys(), query
    has = set().union(*(known[name] for name in names)) | TARGET_LABELS
    used = re.findall(r"[{,]\s*(\w+)\s*(?:=|!)", bare)
    used += [each for group in re.findall(r"by \((.*?)\)", bare) for each in group.split(", ")]
    assert set(used) <= has, query


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "tools" / "metrics.py", "--check"], capture_output=True
    )

    assert checked.returncode == 0, checked.stderr.decode()


def test_the_queries_of_the_document_name_metrics_that_there_are() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text().split("## What to look at")[1]
    queries = re.findall(r"\| `(.*?)` \|$", text, re.MULTILINE)

    assert len(queries) >= 5
    for query in queries:
        check_names(query, known_labels())


def rules() -> list[dict[str, Any]]:
    return [
        rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    ]


def test_alerts_name_metrics_that_there_are() -> None:
    known = known_labels()
    for rule in rules():
        if "namespace:steno_calls_failed" not in rule["expr"]:
            check_names(rule["expr"], known)


def test_every_alert_has_an_entry_in_the_operators_handbook() -> None:
    handbook = (ROOT / "docs" / "operations.md").read_text()
    titles = set(re.findall(r"^### (\w+)$", handbook, re.MULTILINE))
    links = {
        rule["annotations"]["runbook_url"].removeprefix("docs/operations.md#")
        for rule in rules()
        if "alert" in rule
    }

    assert links == {title.lower() for title in titles if title.startswith("Steno")}


@needs_promtool
def test_prometheus_accepts_the_alerts() -> None:
    promtool("check", "rules", ALERTS)


@needs_promtool
def test_every_alert_is_told_when_it_should_be_and_not_otherwise() -> None:
    cases = Path(__file__).with_name("alerts_test.yaml")
    tested = {
        case["alertname"]
        for test in yaml.safe_load(cases.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }

    assert tested == {rule["alert"] for rule in rules() if "alert" in rule}
    promtool("test", "rules", cases)


def queries_of(dashboard: Path) -> Iterator[str]:
    for panel in json.loads(dashboard.read_text())["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_name_metrics_that_there_are(dashboard: Path) -> None:
    for query in queries_of(dashboard):
        check_names(query, known_labels())


@needs_promtool
@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_prometheus_can_parse_the_queries_of_dashboards(dashboard: Path, tmp_path: Path) -> None:
    rules = [
        {"record": f"query{number}", "expr": query}
        for number, query in enumerate(queries_of(dashboard))
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))

    promtool("check", "rules", file)


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_of_a_dashboard_do_not_overlap(dashboard: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(dashboard.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_autoscaling_asks_for_metrics_that_there_are() -> None:
    scaled = of_kind(of_profile("everything"), "ScaledObject")

    assert {each["metadata"]["name"] for each in scaled} == {
        "steno-prepare",
        "steno-transcription-volume",
    }
    for each in scaled:
        for trigger in each["spec"]["triggers"]:
            check_names(trigger["metadata"]["query"], known_labels())


def test_a_queue_that_nobody_looks_at_is_not_taken_for_an_empty_one() -> None:
    for each in of_kind(of_profile("everything"), "ScaledObject"):
        (trigger,) = each["spec"]["triggers"]
        assert " or " not in trigger["metadata"]["query"]
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        assert each["spec"]["fallback"]["behavior"] == "currentReplicasIfHigher"
        assert "authenticationRef" not in trigger


def test_keda_says_to_prometheus_who_it_is() -> None:
    reference = {"name": "prometheus", "kind": "ClusterTriggerAuthentication"}
    known = {
        "monitoring": {
            "prometheusAuthModes": "bearer",
            "prometheusAuthenticationRef": reference,
        }
    }
    for each in of_kind(render(merged(PROFILES["everything"], known)), "ScaledObject"):
        (trigger,) = each["spec"]["triggers"]
        assert trigger["authenticationRef"] == reference
        assert trigger["metadata"]["authModes"] == "bearer"


def test_the_chart_brings_alerts_and_dashboards_as_they_are() -> None:
    manifests = of_profile("everything")
    (rule,) = of_kind(manifests, "PrometheusRule")
    boards = {
        name: json.loads(text)
        for board in of_kind(manifests, "ConfigMap")
        for name, text in board["data"].items()
    }

    assert rule["spec"] == yaml.safe_load(ALERTS.read_text())
    assert boards == {path.name: json.loads(path.read_text()) for path in DASHBOARDS}


def test_alerts_link_to_where_the_handbook_is_served() -> None:
    served = {"monitoring": {"prometheusRules": {"runbookUrl": "https://docs.example.com/run"}}}
    (rule,) = of_kind(render(merged(PROFILES["everything"], served)), "PrometheusRule")

    links = [
        each["annotations"]["runbook_url"]
        for group in rule["spec"]["groups"]
        for each in group["rules"]
        if "alert" in each
    ]

    assert all(link.startswith("https://docs.example.com/run#steno") for link in links)


def test_the_pod_monitor_finds_the_metrics_of_every_process() -> None:
    manifests = of_profile("everything")
    (monitor,) = of_kind(manifests, "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]

    for deployment in of_kind(manifests, "Deployment"):
        pod = deployment["spec"]["template"]
        labels = pod["metadata"]["labels"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
        (container,) = pod["spec"]["containers"]
        assert endpoint["port"] in {port["name"] for port in container["ports"]}
