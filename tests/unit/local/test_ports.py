from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from steno.local.ports import HOST, PortTaken, choose_ports, free_port, is_free


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_somebody_listens_on_is_not_free(taken: int) -> None:
    assert not is_free(taken)


def test_a_usual_port_is_used_if_it_is_free(tmp_path: Path) -> None:
    usual = free_port()

    assert choose_ports(tmp_path / "ports.json", ["job"], usual={"job": usual}) == {"job": usual}


def test_another_port_is_used_where_the_usual_one_is_taken(tmp_path: Path, taken: int) -> None:
    chosen = choose_ports(tmp_path / "ports.json", ["job"], usual={"job": taken})

    assert chosen["job"] != taken
    assert is_free(chosen["job"])


def test_ports_stay_the_same_from_one_time_to_the_next(tmp_path: Path) -> None:
    first = choose_ports(tmp_path / "ports.json", ["nats", "s3"])

    assert choose_ports(tmp_path / "ports.json", ["s3", "nats"]) == first


def test_a_remembered_port_that_is_taken_by_now_is_given_up(tmp_path: Path) -> None:
    first = choose_ports(tmp_path / "ports.json", ["nats"])
    with socket.create_server((HOST, first["nats"])):
        second = choose_ports(tmp_path / "ports.json", ["nats"])

    assert second != first


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(tmp_path: Path, taken: int) -> None:
    with pytest.raises(PortTaken, match=f"port {taken}, for job, is in use"):
        choose_ports(tmp_path / "ports.json", ["job"], asked={"job": taken})


def test_no_two_names_get_the_same_port(tmp_path: Path) -> None:
    names = [f"worker-{n}" for n in range(50)]

    assert len(set(choose_ports(tmp_path / "ports.json", names).values())) == 50


def test_who_looks_twice_before_it_listens_gets_two_ports() -> None:
    assert len({free_port() for _ in range(100)}) == 100


def test_the_port_of_a_server_that_is_down_is_nobody_elses(tmp_path: Path) -> None:
    memory = tmp_path / "ports.json"
    chosen = {*choose_ports(memory, ["nats", "s3"]).values()}
    assert chosen.isdisjoint(free_port() for _ in range(500))

    memory.unlink()

    assert chosen <= {free_port() for _ in range(500)}


def test_two_processes_that_would_choose_the_same_ports_do_not() -> None:
    script = (
        "import random; random.sample = lambda ports, count: list(ports); "
        "from steno.local.ports import free_port; "
        "print(*{free_port() for _ in range(2000)}, flush=True); input()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    one, other = (set(process.stdout.readline().split()) for process in processes)  # type: ignore[union-attr]
    for process in processes:
        process.communicate(b"\n")

    assert one.isdisjoint(other)
