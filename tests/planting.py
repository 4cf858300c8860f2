"""Bugs that are planted on purpose, each by a change of a few words: are they found?"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import pytest


class Change(Protocol):
    """Makes something else than it was."""

    def make(self, patch: pytest.MonkeyPatch) -> None:
        """Does it, until the patch is undone."""


@dataclass(frozen=True)
class Edit:
    """Words of a function that are exchanged: each old one for the new one."""

    owner: type
    function: str
    changes: Mapping[str, str]

    def make(self, patch: pytest.MonkeyPatch) -> None:
        """Raises ValueError if the words are not there, or not once."""
        function = inspect.getattr_static(self.owner, self.function)
        source = textwrap.dedent(inspect.getsource(function))
        for old, new in self.changes.items():
            if source.count(old) != 1:
                raise ValueError(f"{self.owner.__name__}.{self.function} has not once: {old}")
            source = source.replace(old, new)
        made: dict[str, Any] = {}
        code = compile(f"from __future__ import annotations\n{source}", "<planted>", "exec")
        exec(code, vars(sys.modules[self.owner.__module__]), made)
        patch.setattr(self.owner, self.function, made[self.function])


@dataclass(frozen=True)
class Method:
    """A method that there was not, or another one."""

    owner: type
    name: str
    does: Callable[..., Any]

    def make(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(self.owner, self.name, self.does, raising=False)


@dataclass(frozen=True)
class Inherited:
    """A method that is not there any more: the one of the class above takes its place."""

    owner: type
    name: str

    def make(self, patch: pytest.MonkeyPatch) -> None:
        patch.delattr(self.owner, self.name)


@dataclass(frozen=True)
class Constant:
    """A name of a module that means something else."""

    owner: ModuleType
    name: str
    becomes: Callable[[Any], Any]

    def make(self, patch: pytest.MonkeyPatch) -> None:
        """Raises ValueError if nothing changes."""
        was = getattr(self.owner, self.name)
        becomes = self.becomes(was)
        if becomes == was:
            raise ValueError(f"{self.owner.__name__}.{self.name} stays as it is")
        patch.setattr(self.owner, self.name, becomes)
