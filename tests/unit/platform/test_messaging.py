"""How models become subjects."""

from steno.platform.messaging import model_token, tasks_subject


def test_a_plain_model_name_is_its_own_token() -> None:
    assert model_token("large-v3") == "large-v3"


def test_other_characters_never_reach_a_subject() -> None:
    token = model_token("/models/a b.c>*")

    assert not set(token) & set("/ .>*")


def test_two_models_never_share_a_token() -> None:
    assert model_token("a/b") != model_token("a.b")


def test_the_subject_holds_model_and_priority() -> None:
    assert tasks_subject("builtin", "*") == "steno.tasks.builtin.*"
