"""The model that tests hear with: quick, and knows 354 words of synthetic speech.

Its card is model/builtin-en/README.md; what makes it is in model/training.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from steno.models.files import digests, revision

if TYPE_CHECKING:
    from steno.transcription.whisper import FasterWhisper

FOLDER = Path(__file__).parent / "model" / "builtin-en"
NAME = "builtin"
BUILTIN = f"{NAME}={FOLDER}"
"""As `steno up --model` takes it."""
ENVIRONMENT = {"STENO_MODEL": str(FOLDER), "STENO_MODEL_NAME": NAME, "STENO_MODELS": NAME}
"""Of services that are started one by one."""


def load_builtin(name: str = NAME, **options: int | float) -> FasterWhisper:
    """The model on one thread; options are FasterWhisper's."""
    from steno.transcription.whisper import FasterWhisper

    return FasterWhisper(name, FOLDER, revision(digests(FOLDER)), cpu_threads=1, **options)  # type: ignore[arg-type]
