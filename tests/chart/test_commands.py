"""The commands that operators are told to type are ones that can be typed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise, takewhile

import pytest
import yaml

from manifests import CHART, PROFILES, SERVERS, Values, merged, of_profile, pods, render, texts

ROOT = CHART.parents[2]
DOCUMENTS = [ROOT / "README.md", CHART / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

HELM = {
    "upgrade": {
        *("--install", "--namespace", "--create-namespace", "--values", "--set"),
        *("--reset-then-reuse-values", "--wait", "--timeout"),
    },
    "rollback": {"--namespace"},
    "uninstall": {"--namespace"},
    "test": {"--namespace"},
}
"""Verbs of Helm 4 that the documents use, with the options of them that they do."""

Command = tuple[str, ...]


def commands_in(text: str, program: str) -> Iterator[Command]:
    """The commands of a program, in blocks of code and between words; lines may go on.

    What runs inside of a pod (`-- steno ...`), and where input comes from, is left out.
    """
    whole = re.sub(r"\\\n\s*", " ", text)
    for line in re.findall(rf"^\s*({program} .*)$|`({program} [^`]+)`", whole, re.MULTILINE):
        for part in "".join(line).split(" | "):
            words = shlex.split(part.removesuffix("&"))
            if words[0] == program:
                yield tuple(takewhile(lambda word: word != "--" and word[0] != "<", words))


def notes_of(values: Values) -> str:
    return texts(values)["steno/templates/NOTES.txt"]


def commands(program: str) -> list[Command]:
    told = [document.read_text() for document in DOCUMENTS]
    told += [notes_of(PROFILES[profile]) for profile in ("dev", "everything")]
    return sorted({command for text in told for command in commands_in(text, program)})


def test_images_are_built_and_pushed_under_the_names_that_the_chart_runs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    image = yaml.safe_load((CHART / "values.yaml").read_text())["image"]
    repositories = {image["repository"], image["gpuRepository"]}
    told = {" ".join(command) for command in commands("docker")}

    for repository in repositories:  # the names of the Dockerfile's stages, too
        name = f"registry.example.com/speech/{repository}:{chart['appVersion']}"
        assert {f"docker build --target {repository} --tag {name} .", f"docker push {name}"} <= told
    assert len([command for command in told if command.startswith("docker push")]) == 2


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl on the PATH")
@pytest.mark.parametrize("command", commands("kubectl"), ids=" ".join)
def test_kubectl_knows_the_command_and_its_options(command: Command) -> None:
    """Options are read before help is shown, without a cluster."""
    asked = subprocess.run([*command, "--help"], capture_output=True, text=True)

    assert asked.returncode == 0, asked.stderr
    (usage,) = re.findall(r"^Usage:\n +(.*)", asked.stdout, re.MULTILINE)
    assert not re.search(r"SUBCOMMAND|\[command\]", usage), usage


def test_kubectl_is_told_of_things_that_the_chart_has() -> None:
    labels = [pod["metadata"]["labels"] for _, pod in pods(of_profile("dev"))]
    there = {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in of_profile("dev")}
    told = commands("kubectl")

    for command in told:
        words = list(command)
        if "--selector" in words:
            key, _, value = words[words.index("--selector") + 1].partition("=")
            assert any(each.get(key) == value for each in labels), command
        named = {word for word in words if word.startswith(("service/", "deployment/"))}
        assert named <= there, command
    assert any("--selector" in command for command in told)
    assert any("port-forward" in command for command in told)
    assert any("exec" in command for command in told)


def test_the_notes_tell_how_to_speak_to_services_that_speak_tls() -> None:
    assert "steno --tls" not in notes_of(PROFILES["dev"])
    assert "steno --tls --address steno.example.com:443" in notes_of(PROFILES["everything"])
    assert "port-forward" not in notes_of(PROFILES["everything"])


@pytest.mark.parametrize("command", commands("helm"), ids=" ".join)
def test_helm_knows_the_command_and_the_chart_its_values(command: Command) -> None:
    _, verb, *rest = command
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= HELM[verb]

    charts = [word for word in rest if word.startswith("deploy/")]
    assert all((ROOT / path).exists() for path in charts)
    values = values_of(rest)
    if "--install" in rest:
        assert render(values)
    elif values:
        assert render(merged(SERVERS, values))


def values_of(words: list[str]) -> Values:
    """What the files and settings of a command amount to."""
    values: Values = {}
    for option, argument in pairwise(words):
        if option == "--values":
            values = merged(values, yaml.safe_load((ROOT / argument).read_text()))
        elif option == "--set":
            path, _, value = argument.partition("=")
            said = yaml.safe_load(value)
            for key in reversed(path.split(".")):
                said = {key: said}
            values = merged(values, said)
    return values
