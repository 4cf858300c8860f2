"""What one tenant may take of what there is for all."""

from __future__ import annotations

import pytest
from pydantic_settings import BaseSettings

from steno.concatenation.settings import Settings as ConcatenationSettings
from steno.job.settings import Settings as JobSettings
from steno.upload.settings import Settings as UploadSettings

LIMITS = [
    (settings, name)
    for settings in (UploadSettings, JobSettings, ConcatenationSettings)
    for name in settings.model_fields
    if "_tenant_max_" in name
]


@pytest.mark.parametrize(("settings", "name"), LIMITS, ids=[name for _, name in LIMITS])
def test_one_tenant_leaves_room_for_another(settings: type[BaseSettings], name: str) -> None:
    of_all = settings.model_fields[name.replace("_tenant_", "_")]

    assert settings.model_fields[name].default <= of_all.default / 2
