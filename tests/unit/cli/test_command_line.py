"""What is typed, what is refused before anything is asked of a service, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from steno.cli import __main__ as cli
from steno.cli.connection import Addresses
from steno.cli.failures import CliError, Exit
from steno.cli.recognition import FLAG_OF
from steno.cli.transcribe import check, config_of, file_names, write
from steno.local.data_dir import Running
from steno.v1 import transcript_pb2

NOWHERE = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def no_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("STENO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STENO_HOME", str(tmp_path / "no-home"))
    monkeypatch.setenv("GRPC_VERBOSITY", "ERROR")  # what a command sets must not outlast the test


def running(folder: Path, **addresses: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Running(
        pid=1, addresses=addresses, metrics={}, servers={}, models=["builtin"], logs=str(folder)
    ).write(folder)
    return folder


def resolve(*arguments: str) -> Addresses:
    return Addresses.resolve(cli.parser().parse_args([*arguments, "status"]), os.environ)


def test_without_any_hint_the_usual_ports_are_asked() -> None:
    found = resolve()

    assert (found.upload, found.job, found.transcription) == (
        "127.0.0.1:50051",
        "127.0.0.1:50052",
        "127.0.0.1:50053",
    )


def test_what_runs_in_the_home_folder_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    addresses = {"upload": "a:1", "job": "a:2", "transcription": "a:3", "concatenation": "a:4"}
    home = running(tmp_path / "home", **addresses)
    monkeypatch.setenv("STENO_HOME", str(home))

    assert resolve() == Addresses(**addresses, source=str(home), here=Running.read(home))


def test_the_environment_counts_more_than_what_runs_at_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = running(tmp_path / "home", upload="a:1", job="a:2", transcription="a:3")
    monkeypatch.setenv("STENO_HOME", str(home))
    monkeypatch.setenv("STENO_JOB_ADDRESS", "b:2")

    found = resolve()

    assert (found.upload, found.job) == ("a:1", "b:2")


def test_one_front_door_serves_all_that_have_no_address_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STENO_ADDRESS", "door:443")
    monkeypatch.setenv("STENO_UPLOAD_ADDRESS", "upload:1")

    found = resolve()

    assert (found.upload, found.job, found.transcription) == ("upload:1", "door:443", "door:443")


def test_a_named_folder_counts_more_than_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = running(tmp_path / "data", upload="a:1", job="a:2", transcription="a:3")
    monkeypatch.setenv("STENO_ADDRESS", "door:443")

    assert resolve("--data-dir", str(folder)).job == "a:2"


def test_a_named_address_counts_more_than_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STENO_JOB_ADDRESS", "b:2")

    assert resolve("--address", "c:1").job == "c:1"


def test_a_named_folder_in_which_nothing_runs_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(CliError) as caught:
        resolve("--data-dir", str(tmp_path))

    assert caught.value.code is Exit.UNREACHABLE
    assert f"steno up --data-dir {tmp_path}" in caught.value.hint


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["jobs"],
        ["jobs", "get"],
        ["transcribe"],
        ["transcribe", "a.wav", "--format", "docx"],
        ["transcribe", "a.wav", "--label", "no-equals-sign"],
        ["jobs", "list", "--state", "sleeping"],
        ["jobs", "list", "--limit", "0"],
        ["up", "--workers", "none"],
        ["live"],
        ["live", "a.wav", "--drop", "2"],
        ["live", "a.wav", "--microphone"],
        ["sessions", "list", "--state", "sleeping"],
    ],
)
def test_a_wrong_command_line_ends_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)

    assert caught.value.code == Exit.USAGE


@pytest.mark.parametrize("models", [[""], ["tiny.en,base"], ["base", "tiny", "base=/models/mine"]])
def test_a_model_is_named_alone_and_once(
    capsys: pytest.CaptureFixture[str], models: list[str]
) -> None:
    arguments = [argument for model in models for argument in ("--model", model)]

    assert cli.main(["up", *arguments]) == Exit.USAGE
    assert "expected one name for each --model" in capsys.readouterr().err


def test_without_its_package_the_microphone_says_how_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)  # as if it were not installed

    assert cli.main(["live", "--microphone"]) == Exit.USAGE
    assert "install Steno with its extra 'microphone'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--json", "version"], ["version", "--json"]])
def test_shared_options_stand_before_or_after_the_command(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 0
    assert "version" in json.loads(capsys.readouterr().out)


def test_a_missing_file_is_wrong_usage_and_nothing_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there.wav"
    there.touch()

    status = cli.main(["transcribe", str(there), "gone.wav", "--address", NOWHERE])

    assert status == Exit.USAGE
    assert capsys.readouterr().err == "steno: gone.wav: no such file or directory\n"


def test_a_folder_instead_of_a_file_is_wrong_usage(tmp_path: Path) -> None:
    assert cli.main(["transcribe", str(tmp_path), "--address", NOWHERE]) == Exit.USAGE


@pytest.mark.parametrize("command", [["jobs", "list"], ["models"], ["audio", "list"]])
def test_nobody_there_is_one_line_that_says_what_to_do(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status = cli.main([*command, "--address", NOWHERE])

    captured = capsys.readouterr()
    assert status == Exit.UNREACHABLE
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "steno up" in captured.err


def test_an_error_is_json_when_json_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["jobs", "list", "--address", NOWHERE, "--json"])

    error = json.loads(capsys.readouterr().err)["error"]
    assert error["exit_code"] == Exit.UNREACHABLE
    assert error["reason"] == "UNREACHABLE"


def test_status_of_nothing_is_a_table_and_unreachable(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--address", NOWHERE]) == Exit.UNREACHABLE
    assert capsys.readouterr().out.count("unreachable") == 4


def test_each_option_reaches_the_model() -> None:
    options = cli.parser().parse_args(
        ["transcribe", "a.wav", "--model", "small", "--language", "de", "--task", "translate",
         "--word-timestamps", "--hotwords", "Steno, NATS", "--hotwords", "Postgres",
         "--prompt", "Hello.", "--no-vad", "--quality", "accurate"]
    )  # fmt: skip

    assert config_of(options) == transcript_pb2.RecognitionConfig(
        model="small",
        language_code="de",
        task=transcript_pb2.RECOGNITION_TASK_TRANSLATE,
        enable_word_time_offsets=True,
        hotwords=["Steno", "NATS", "Postgres"],
        prompt="Hello.",
        vad_filter=False,
        quality=transcript_pb2.RECOGNITION_QUALITY_ACCURATE,
    )


def test_every_option_of_the_contract_has_a_flag_but_one() -> None:
    options = {
        f"config.{name}" for name in transcript_pb2.RecognitionConfig.DESCRIPTOR.fields_by_name
    }

    assert options - set(FLAG_OF) == {"config.multilingual"}
    assert set(FLAG_OF) <= options


def test_a_switch_that_is_not_given_is_left_to_the_platform() -> None:
    config = config_of(cli.parser().parse_args(["transcribe", "a.wav"]))

    assert not config.HasField("vad_filter")
    assert config.model == ""


def test_files_are_named_after_their_recordings() -> None:
    assert file_names(["a/talk.mp3", "-"], "srt") == {"a/talk.mp3": "talk.srt", "-": "stdin.srt"}


def test_two_recordings_of_one_name_keep_their_extensions() -> None:
    names = file_names(["talk.mp3", "talk.wav", "other.wav"], "txt")

    assert list(names.values()) == ["talk.mp3.txt", "talk.wav.txt", "other.txt"]


def test_two_recordings_are_never_written_to_one_file() -> None:
    with pytest.raises(CliError, match=r"would both be written to talk\.wav\.txt") as caught:
        file_names(["a/talk.wav", "b/talk.wav"], "txt")

    assert caught.value.code is Exit.USAGE


def test_a_name_made_for_one_recording_is_not_taken_from_another() -> None:
    with pytest.raises(CliError, match="would both be written"):
        file_names(["talk.mp3", "talk.wav", "talk.mp3.flac"], "txt")


def test_several_recordings_as_subtitles_need_a_folder(tmp_path: Path) -> None:
    files = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for file in files:
        file.touch()
    options = cli.parser().parse_args(["transcribe", *map(str, files), "--format", "srt"])

    with pytest.raises(CliError, match="--output DIR"):
        check(options)


def test_a_transcript_is_written_whole_over_an_older_one(tmp_path: Path) -> None:
    write(tmp_path / "new", "talk.txt", "first\n")
    write(tmp_path / "new", "talk.txt", "second\n")

    assert [(p.name, p.read_text()) for p in (tmp_path / "new").iterdir()] == [
        ("talk.txt", "second\n")
    ]


def test_help_is_there_without_what_only_commands_need() -> None:
    heavy = ("grpc", "rich", "google", "urllib3", "psycopg")
    code = f"""
import sys
from steno.cli.__main__ import main
try:
    main(["--help"])
finally:
    print([name for name in {heavy} if name in sys.modules])
"""

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.splitlines()[-1] == "[]"
    assert "steno" in ran.stdout
