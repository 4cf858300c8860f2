"""Where a process may die: before and after each effect that others can see.

An effect is a transaction that is committed, an object that is written or removed, a message that
is published or settled, a call of another service, and an answer. The table of them is made from
the code: what is added there is in it, with the name of the function and its place within.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor

import steno

PACKAGE = Path(steno.__file__).parent

Place = Literal["before", "after", "returned"]
PLACES: tuple[Place, ...] = ("before", "after", "returned")
"""Nothing is done yet; it is done, and its caller does not know; its caller has gone a step on."""

_POOL = ("transaction", "connection")
_OBJECTS = (
    "put",
    "remove",
    "remove_prefix",
    "create_multipart",
    "upload_part",
    "copy_part",
    "complete_multipart",
    "abort_multipart",
)
EFFECTS = {
    "steno.platform.database:Pool": _POOL,
    "steno.platform.messaging:Messaging": ("publish",),
    "steno.platform.objects:ObjectStore": _OBJECTS,
    "steno.concatenation.recent:RecentObjects": ("put",),
}
"""Methods with an effect, by their class."""

_WRITES = re.compile(r"INSERT INTO|(?<!FOR )UPDATE |DELETE FROM")

_RECEIVERS = (
    dict.fromkeys(_POOL, ("pool",))
    | {"publish": ("messaging",)}
    | dict.fromkeys(_OBJECTS, ("objects", "store"))
)
"""What those are called that have the methods."""

SETTLING = ("ack", "nak", "term")


@dataclass(frozen=True, order=True)
class Site:
    """One effect in the code.

    Attributes:
        process: package of the service that has it, or `platform`.
        name: such as `store:Store.complete:transaction#1`, or `answer:JobService.CreateJob`.
    """

    process: str
    name: str


@dataclass(frozen=True)
class _Call:
    site: Site
    method: str
    first_line: int
    last_line: int


def table() -> list[Site]:
    """All sites of the four services."""
    sites = set()
    for path in _sources():
        scan = _scanned(path)
        sites |= {call.site for call in scan.found}
        sites |= {Site(path.parent.name, f"call:{method}") for method in scan.called}
    sites |= {Site(service, f"answer:{method}") for service, method in _answers()}
    sites |= {
        Site(service, f"settle:{how}")
        for service in ("upload", "transcription")
        for how in SETTLING
    }
    return sorted(sites)


def site_at(path: str, line: int, method: str) -> Site | None:
    """The site of a call, by where it stands; None outside the services."""
    for call in _scanned(Path(path)).found:
        if call.method == method and call.first_line <= line <= call.last_line:
            return call.site
    return None


SERVICES = ("upload", "job", "concatenation", "transcription")

SHARED = (PACKAGE / "platform" / "removals.py",)
"""Has effects of its own, for the services that use it."""


def _sources() -> Iterator[Path]:
    for service in SERVICES:
        yield from sorted((PACKAGE / service).glob("*.py"))
    yield from SHARED


@cache
def _scanned(path: Path) -> _Scan:
    scan = _Scan(path)
    of_service = path.parent.parent == PACKAGE and path.parent.name in SERVICES
    if path in SHARED or (of_service and path.stem != "recent"):
        module = ast.parse(path.read_text())
        scan.statements = {
            name: sql
            for source in _with_statements(path)
            for name, sql in _statements(ast.parse(source.read_text()))
        }
        scan.visit(module)
    return scan


def _with_statements(path: Path) -> Iterator[Path]:
    """A module, and those of its package that hold statements for it."""
    yield path
    yield from sorted(path.parent.glob("statements.py"))
    yield from sorted(path.parent.glob("turns.py"))


def _statements(module: ast.Module) -> Iterator[tuple[str, str]]:
    """The SQL of a module, by its name."""
    for node in module.body:
        if not isinstance(node, ast.Assign) or isinstance(node.value, ast.Call):
            continue  # what is called makes a length of time, or a metric
        if isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, ast.unparse(node.value)


class _Scan(ast.NodeVisitor):
    """Finds calls of EFFECTS, and of other services."""

    def __init__(self, path: Path) -> None:
        self.found: list[_Call] = []
        self.called: set[str] = set()
        """Methods of other services."""
        self.statements: dict[str, str] = {}
        self._path = path
        self._within: list[str] = []
        self._reads = False
        self._count: Counter[str] = Counter()

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        named = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        named |= {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
        said = [text for name, text in self.statements.items() if name in named]
        given = any(argument.arg == "statement" for argument in node.args.args)
        reads = bool(said) and not given and not any(map(_WRITES.search, said))
        outer, self._reads = self._reads, reads
        self._visit_scope(node)
        self._reads = outer

    def _visit_scope(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._within.append(node.name)
        self.generic_visit(node)
        self._within.pop()

    visit_ClassDef = _visit_scope
    visit_FunctionDef = visit_AsyncFunctionDef = _visit_function

    def visit_Call(self, node: ast.Call) -> None:
        """Takes in a call of a method with an effect."""
        if isinstance(node.func, ast.Attribute):
            receiver, method = ast.unparse(node.func.value).strip("_"), node.func.attr
            if receiver.endswith(_RECEIVERS.get(method, ())) and not (
                method == "connection" and self._reads  # which is no effect
            ):
                self._add(node, method)
            elif method in _rpcs():
                self.called.add(method)
        self.generic_visit(node)

    def _add(self, node: ast.Call, method: str) -> None:
        place = f"{self._path.stem}:{'.'.join(self._within)}:{method}"
        self._count[place] += 1
        site = Site(self._path.parent.name, f"{place}#{self._count[place]}")
        self.found.append(_Call(site, method, node.lineno, node.end_lineno or node.lineno))


def _services() -> Iterator[tuple[str, ServiceDescriptor]]:
    pool = descriptor_pool.Default()
    for name in SERVICES:
        __import__(f"steno.v1.{name}_pb2")
        file = pool.FindFileByName(f"steno/v1/{name}.proto")
        for service in file.services_by_name.values():
            yield name, service


def _answers() -> Iterator[tuple[str, str]]:
    for name, service in _services():
        for method in service.methods:
            yield name, f"{service.name}.{method.name}"


@cache
def _rpcs() -> frozenset[str]:
    return frozenset(method.name for _, service in _services() for method in service.methods)


if __name__ == "__main__":
    for site in table():
        print(site.process, site.name)
