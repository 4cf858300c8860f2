"""What can be wrong with a model.

ModelError
|-- ModelNotFound   nobody knows this name, or the folder holds no model
|-- ModelDamaged    a file is not the one that was published
`-- PullFailed      it could not be fetched from where it was asked for
"""

from __future__ import annotations


class ModelError(Exception):
    """The message is a sentence for whoever runs Steno."""


class ModelNotFound(ModelError):
    """Nobody knows this name, or the folder holds no model."""


class ModelDamaged(ModelError):
    """A file is not the one that was published."""

    def __init__(self, model: str, file: str, why: str) -> None:
        super().__init__(f"{model}: {file} {why}")
        self.file = file


class PullFailed(ModelError):
    """It could not be fetched from where it was asked for."""
