"""The Tiltfile, run with stand-ins for Tilt's functions; its language is a part of Python."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import helm_python as helm
import pytest
import yaml

from manifests import CHART, Values, containers, documents, merged, of_kind, pods, texts

ROOT = CHART.parents[2]


class Tilt:
    """Notes what the Tiltfile asks for."""

    def __init__(self, *, gpu: bool) -> None:
        self.images: dict[str, dict[str, Any]] = {}
        self.objects: list[dict[str, Any]] = []
        self.resources: dict[str, dict[str, Any]] = {}
        self._gpu = gpu

    def run(self) -> None:
        names: dict[str, Any] = {
            "config": SimpleNamespace(
                define_bool=lambda name, usage: None, parse=lambda: {"gpu": self._gpu}
            ),
            "allow_k8s_contexts": lambda context: None,
            "docker_build": self._docker_build,
            "fall_back_on": lambda paths: ("fall_back_on", paths),
            "sync": lambda source, target: ("sync", source, target),
            "run": lambda command: ("run", command),
            "helm": self._helm,
            "decode_yaml_stream": documents,
            "encode_yaml_stream": lambda objects: yaml.dump_all(objects, Dumper=yaml.CSafeDumper),
            "k8s_yaml": lambda text: self.objects.extend(documents(text)),
            "k8s_resource": lambda name, **options: self.resources.update({name: options}),
            "local_resource": lambda name, command, **options: self.resources.update(
                {name: options}
            ),
            "TRIGGER_MODE_MANUAL": "manual",
        }
        exec((ROOT / "Tiltfile").read_text(), names)

    def _docker_build(self, name: str, folder: str, **options: Any) -> None:
        self.images[name] = options

    def _helm(
        self, path: str, *, name: str, namespace: str, values: list[str], set: list[str]
    ) -> str:
        assert (ROOT / path).samefile(CHART)
        layers: list[Values] = [yaml.safe_load((ROOT / file).read_text()) for file in values]
        layers += [helm.parse_set_string(each) for each in set]
        rendered = texts(merged(*layers))
        return "\n---\n".join(text for file, text in rendered.items() if not file.endswith(".txt"))


@pytest.fixture(scope="module")
def tilt() -> Tilt:
    """As it was run once; not to be changed."""
    tilt = Tilt(gpu=True)
    tilt.run()
    return tilt


def test_images_are_stages_of_the_dockerfile_and_those_that_the_chart_runs(tilt: Tilt) -> None:
    stages = re.findall(r"^FROM .* AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    chart = yaml.safe_load((CHART / "values.yaml").read_text())["image"]

    assert {options["target"] for options in tilt.images.values()} <= set(stages)
    assert set(tilt.images) == {chart["repository"], chart["gpuRepository"]}


@pytest.mark.parametrize("gpu", [False, True], ids=["on CPUs", "with GPUs"])
def test_every_image_that_is_built_is_one_that_a_pod_runs(gpu: bool) -> None:
    """Tilt does not build others."""
    tilt = Tilt(gpu=gpu)
    tilt.run()
    run = {each["image"] for _, pod in pods(tilt.objects) for each in containers(pod)}

    assert len(tilt.images) == 1 + gpu
    assert set(tilt.images) <= {image.partition(":")[0] for image in run}


def test_what_is_copied_into_pods_is_there_and_lands_where_the_image_has_it(tilt: Tilt) -> None:
    steps = {step[0]: step[1:] for step in tilt.images["steno"]["live_update"]}
    source, target = steps["sync"]
    dockerfile = (ROOT / "Dockerfile").read_text()

    assert (ROOT / source).is_dir()
    assert target.startswith("/opt/steno/lib/python3.11/")
    assert "PYTHON_IMAGE=python:3.11" in dockerfile
    assert all((ROOT / path).exists() for path in steps["fall_back_on"][0])


def test_its_resources_are_workloads_of_the_chart(tilt: Tilt) -> None:
    workloads = {owner["metadata"]["name"] for owner, _ in pods(tilt.objects)}
    named = {name for name in tilt.resources if name.startswith("steno-")}
    needed = {
        each for options in tilt.resources.values() for each in options.get("resource_deps", [])
    }

    assert named | needed <= workloads
    assert {m["metadata"]["name"] for m in of_kind(tilt.objects, "Deployment")} <= named


def test_a_process_can_be_started_again_with_the_command_of_the_chart(tilt: Tilt) -> None:
    for deployment in of_kind(tilt.objects, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        shell, option, loop, separator, *command = container["command"]
        assert (shell, option, separator) == ("sh", "-c", "--")
        assert '"$@"' in loop
        assert command[:2] == ["python", "-m"]


def test_another_rendering_has_the_same_passwords() -> None:
    secrets = []
    for _ in range(2):
        tilt = Tilt(gpu=False)
        tilt.run()
        secrets += of_kind(tilt.objects, "Secret")

    assert secrets[0] == secrets[1]
