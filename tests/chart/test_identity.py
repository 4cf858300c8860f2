"""Who the pods are, to the S3 store and to others outside."""

from __future__ import annotations

from typing import Any

import helm_python as helm
import pytest

from manifests import SERVERS, Values, component_of, containers, merged, of_kind, pods, render

ROLE = {"eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/steno"}
KEYS = {"STENO_S3_ACCESS_KEY", "STENO_S3_SECRET_KEY"}
EARLY = {"migrate", "fetch"}
FETCHED: Values = {
    "transcription": {
        "poolDefaults": {
            "model": "small",
            "modelStore": {"type": "volume", "existingClaim": "models"},
        }
    }
}


def accounts(values: Values) -> dict[str, str]:
    """The service account of each component's pods; the namespace's default one has no name."""
    return {
        component_of(pod): pod["spec"].get("serviceAccountName", "")
        for _, pod in pods(render(merged(SERVERS, FETCHED, values)))
    }


def test_an_account_that_is_made_is_that_of_all_pods_that_run_after_it() -> None:
    made: Values = {"serviceAccount": {"create": True, "annotations": ROLE}}
    found = accounts(made)
    (account,) = of_kind(render(merged(SERVERS, made)), "ServiceAccount")

    assert account["metadata"]["name"] == "steno"
    assert account["metadata"]["annotations"] == ROLE
    assert {found.pop(name) for name in EARLY} == {""}
    assert set(found.values()) == {"steno"}


def test_an_account_that_is_there_is_that_of_all_pods() -> None:
    assert set(accounts({"serviceAccountName": "speech"}).values()) == {"speech"}
    assert set(accounts({}).values()) == {""}


def test_an_account_may_be_made_under_a_name_of_one_s_own() -> None:
    named: Values = {"serviceAccountName": "speech", "serviceAccount": {"create": True}}

    (account,) = of_kind(render(merged(SERVERS, named)), "ServiceAccount")

    assert account["metadata"]["name"] == "speech" == accounts(named)["upload"]


def variables(values: Values) -> set[str]:
    found: list[dict[str, Any]] = [
        variable
        for _, pod in pods(render(values))
        for container in containers(pod)
        for variable in container.get("env", [])
    ]
    return {variable["name"] for variable in found}


def test_pods_that_have_an_identity_have_no_keys_of_the_store() -> None:
    identity: Values = {"s3": {"existingSecret": "", "workloadIdentity": True}}

    assert variables(SERVERS) >= KEYS
    assert not variables(merged(SERVERS, identity)) & KEYS


def test_a_store_without_keys_is_refused_unless_pods_have_an_identity() -> None:
    with pytest.raises(helm.HelmError, match=r"s3\.workloadIdentity"):
        render(merged(SERVERS, {"s3": {"existingSecret": ""}}))
