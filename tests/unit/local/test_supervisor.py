from __future__ import annotations

from pathlib import Path

from steno.local.ports import is_free
from steno.local.servers import NAMES
from steno.local.supervisor import ports_of, services


def names(workers: int) -> list[str]:
    return [*(port for s in services(["builtin"], workers) for port in s.ports), *NAMES]


def free_base() -> int:
    """A number from which on 50 ports are free."""
    bases = range(12_000, 19_000, 50)
    return next(base for base in bases if all(is_free(base + n) for n in range(50)))


def test_every_process_is_a_module_of_its_own() -> None:
    processes = {service.name: service.module for service in services(["builtin"], workers=2)}

    assert processes == {
        "upload": "steno.upload",
        "prepare": "steno.upload.prepare",
        "job": "steno.job",
        "concatenation": "steno.concatenation",
        "transcription": "steno.transcription",
        "transcription-2": "steno.transcription",
    }


def test_workers_serve_the_model_and_jobs_offer_it() -> None:
    by_name = {service.name: service.environment for service in services(["large-v3"], workers=2)}

    assert by_name["job"]["STENO_MODELS"] == "large-v3"
    assert by_name["transcription"]["STENO_MODEL"] == "large-v3"
    assert by_name["transcription-2"]["STENO_MODEL"] == "large-v3"


def test_each_of_several_models_has_workers_and_the_first_is_the_default() -> None:
    by_name = {
        service.name: service.environment for service in services(["own=/my/files", "base"], 2)
    }

    assert by_name["job"]["STENO_MODELS"] == "own,base"
    served = [
        (environment["STENO_MODEL_NAME"], environment["STENO_MODEL"])
        for name, environment in by_name.items()
        if name.startswith("transcription")
    ]
    assert served == [("own", "/my/files")] * 2 + [("base", "base")] * 2


def test_workers_share_the_processors() -> None:
    alone, *_ = (s for s in services(["builtin"], 1) if s.module == "steno.transcription")
    many = [s for s in services(["builtin"], 64) if s.module == "steno.transcription"]

    assert "STENO_CPU_THREADS" not in alone.environment
    assert {s.environment["STENO_CPU_THREADS"] for s in many} == {"1"}


def test_services_have_the_first_ports_from_the_base_on(tmp_path: Path) -> None:
    base = free_base()

    ports = ports_of(tmp_path, names(workers=1), base)

    assert (ports["upload"], ports["job"], ports["transcription"]) == (base, base + 1, base + 2)


def test_from_a_base_on_all_ports_lie_close_together_and_none_is_used_twice(
    tmp_path: Path,
) -> None:
    base = free_base()

    ports = ports_of(tmp_path, names(workers=8), base)

    assert len(set(ports.values())) == len(ports)
    assert all(base <= port < base + 50 for port in ports.values())


def test_free_ports_stay_the_same_from_one_time_to_the_next(tmp_path: Path) -> None:
    first = ports_of(tmp_path, names(workers=1), 0)

    assert ports_of(tmp_path, names(workers=1), 0) == first
