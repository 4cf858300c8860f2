"""What the documents tell an operator to type fits the chart."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from manifests import CHART, PROFILES, SERVERS, merged, of_kind, of_profile, render

ROOT = CHART.parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "docs" / "operations.md", CHART / "README.md"]
DOCUMENTS += sorted(CHART.glob("values-*.yaml"))


def commands(program: str) -> Iterator[tuple[Path, list[str]]]:
    """Commands of a program in code blocks, and in the comments of profiles."""
    for document in DOCUMENTS:
        text = document.read_text().replace("\\\n#", "").replace("\\\n", "")
        for line in re.findall(rf"^(?:#  )? *({program} .*)$", text, re.MULTILINE):
            yield document, shlex.split(line)


def test_every_install_names_values_that_the_chart_has() -> None:
    installs = [
        words for _, words in commands("helm") if "upgrade" in words and "--install" in words
    ]

    assert len(installs) >= 4
    for words in installs:
        assert (ROOT / words[words.index("steno") + 1]).samefile(CHART)
        values: dict[str, Any] = {}
        for option, value in pairwise(words):
            if option == "--values" and value != "my-servers.yaml":
                values = merged(values, yaml.safe_load((ROOT / value).read_text()))
            elif option == "--values":
                values = merged(values, SERVERS)
            elif option == "--set":
                values = merged(values, helm.parse_set_string(value))
        assert render(values)


def test_values_in_the_documents_are_values_of_the_chart() -> None:
    for name in ("operations.md", "gpu.md"):
        text = (ROOT / "docs" / name).read_text()
        blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
        assert blocks, name
        for block in blocks:
            assert render(merged(SERVERS, yaml.safe_load(block)))


def test_the_policy_for_a_gateway_names_the_services_and_a_name_of_their_certificate() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (block,) = (b for b in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "BackendTLS" in b)
    (policy,) = yaml.safe_load(block)["extraObjects"]
    manifests = of_profile("everything")
    (certificate,) = of_kind(manifests, "Certificate")
    (route,) = of_kind(manifests, "GRPCRoute")

    assert {each["name"] for each in policy["spec"]["targetRefs"]} == {
        each["name"] for rule in route["spec"]["rules"] for each in rule["backendRefs"]
    }
    assert policy["spec"]["validation"]["hostname"] in certificate["spec"]["dnsNames"]


def test_the_volume_for_models_is_the_one_that_production_names() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (claim,) = (yaml.safe_load(each) for each in re.findall(r"<<END\n(.*?)END", text, re.DOTALL))
    store = PROFILES["production"]["transcription"]["poolDefaults"]["modelStore"]

    kubernetes_validate.validate(claim, "1.34", strict=True)
    assert claim["metadata"]["name"] == store["existingClaim"]


def test_selectors_in_commands_find_pods() -> None:
    labels = [
        manifest["spec"]["template"]["metadata"]["labels"]
        for manifest in of_kind(of_profile("defaults"), "Deployment")
    ]
    selectors = [
        words[words.index("--selector") + 1].split("=")
        for _, words in commands("kubectl")
        if "--selector" in words
    ]

    assert selectors
    for label, value in selectors:
        assert any(found.get(label) == value for found in labels)


@pytest.mark.parametrize("name", sorted(path.stem for path in CHART.glob("values-*.yaml")))
def test_every_profile_is_tested_and_told(name: str) -> None:
    assert name.removeprefix("values-") in PROFILES
    assert f"[{name}.yaml]({name}.yaml)" in (CHART / "README.md").read_text()
