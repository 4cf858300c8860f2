"""How pods are replaced, and where the new ones go."""

from __future__ import annotations

from typing import Any

import pytest

from manifests import (
    PROFILES,
    SERVERS,
    Manifest,
    Values,
    component_of,
    merged,
    of_kind,
    of_profile,
    render,
)

every_profile = pytest.mark.parametrize("profile", PROFILES)

VOLUME = {"model": "small", "modelStore": {"type": "volume", "existingClaim": "models"}}


def pool(**values: Any) -> Manifest:
    """The Deployment of a pool with these values."""
    return pool_beside({}, **values)


def pool_beside(others: Values, **values: Any) -> Manifest:
    own: Values = {"transcription": {"pools": {"default": values}}}
    (deployment,) = [
        each
        for each in of_kind(render(merged(SERVERS, others, own)), "Deployment")
        if component_of(each) == "transcription-default"
    ]
    return deployment


def rollout(deployment: Manifest) -> tuple[int, int]:
    found = deployment["spec"]["strategy"]["rollingUpdate"]
    return found["maxSurge"], found["maxUnavailable"]


@every_profile
def test_a_rollout_does_not_fail_while_its_pods_may_still_start(profile: str) -> None:
    for deployment in of_kind(of_profile(profile), "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        probe = container["startupProbe"]
        patience = probe["periodSeconds"] * probe["failureThreshold"]

        assert deployment["spec"]["progressDeadlineSeconds"] >= 600 + patience


def test_a_pod_that_fetches_its_model_first_has_as_long_again() -> None:
    loads = pool(model="tiny.en", startupSeconds=900)
    fetches = pool(model="large-v3", startupSeconds=900)

    assert loads["spec"]["progressDeadlineSeconds"] == 600 + 900
    assert fetches["spec"]["progressDeadlineSeconds"] == 600 + 2 * 900


def test_a_pool_of_one_is_never_missing_where_there_may_be_a_second_pod() -> None:
    assert rollout(pool()) == (1, 0)
    assert rollout(pool(model="small")) == (1, 0)


@pytest.mark.parametrize("kept", [{"gpus": 1}, VOLUME], ids=["GPU", "volume"])
def test_a_worker_makes_room_for_the_new_one_where_there_may_be_no_second(kept: Values) -> None:
    assert rollout(pool(**kept)) == (0, 1)
    assert rollout(pool_beside({"transcription": {"poolDefaults": kept}})) == (0, 1)
    assert rollout(pool(**kept, rollingUpdate={"maxSurge": 1, "maxUnavailable": 0})) == (1, 0)


def constraints(deployment: Manifest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = deployment["spec"]["template"]["spec"][
        "topologySpreadConstraints"
    ]
    return found


@every_profile
def test_pods_that_are_replaced_do_not_count_where_the_new_ones_are_spread(profile: str) -> None:
    for deployment in of_kind(of_profile(profile), "Deployment"):
        for each in constraints(deployment):
            assert each["matchLabelKeys"] == ["pod-template-hash"]
            assert each["whenUnsatisfiable"] == "ScheduleAnyway"


def test_a_workload_may_insist_on_being_spread() -> None:
    strict = {"job": {"topologySpreadWhenUnsatisfiable": "DoNotSchedule"}}
    found = {
        component_of(each): {c["whenUnsatisfiable"] for c in constraints(each)}
        for each in of_kind(render(merged(SERVERS, strict)), "Deployment")
    }

    assert found["job"] == {"DoNotSchedule"}
    assert found["upload"] == {"ScheduleAnyway"}


def test_a_pod_may_have_to_be_ready_for_a_while_and_the_rollout_waits_for_it() -> None:
    patient = pool(minReadySeconds=30)

    assert patient["spec"]["minReadySeconds"] == 30
    assert (
        patient["spec"]["progressDeadlineSeconds"]
        == pool_beside({}, startupSeconds=1830)["spec"]["progressDeadlineSeconds"]
    )
