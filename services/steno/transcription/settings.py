"""The environment of the transcription service."""

from __future__ import annotations

import os
import re
import socket
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from steno.models.catalogue import DEFAULT
from steno.platform.settings import NatsSettings, ProcessSettings, S3Settings, SandboxSettings


class Settings(ProcessSettings, NatsSettings, S3Settings, SandboxSettings):
    """What `python -m steno.transcription` reads."""

    listen: str = "0.0.0.0:50053"
    """Address of the gRPC server, `host:port`; port 0 takes a free one."""
    engine: Literal["whisper", "remote"] = "whisper"
    """What recognises: `whisper`, the model of `STENO_MODEL` in this process; or `remote`, a server
    elsewhere that answers OpenAI's `POST /v1/audio/transcriptions`. All settings of the model's
    files, device and batches are for `whisper` only."""
    remote_url: str = Field("", validate_default=True)
    """`remote`: where its API begins, such as `http://speaches:8000/v1`; `/audio/transcriptions`
    comes behind it."""
    remote_model: str = Field("", validate_default=True)
    """`remote`: name by which the server knows the model, such as `whisper-1`. Jobs ask for it by
    `STENO_MODEL_NAME` where that is set, else by this name."""
    remote_api_key: SecretStr = SecretStr("")
    """`remote`: key that is sent as `Authorization: Bearer`; empty: none is."""
    remote_concurrency: int = Field(4, ge=1, le=256)
    """`remote`: slices of jobs that are sent at once. Recognize calls and live windows come on top,
    each within its own limit."""
    remote_timeout_seconds: float = Field(300, gt=0)
    """`remote`: seconds for one answer. After three in vain the server is asked for a second of
    silence: if it answers that, and not the slice, the slice has failed once; else the server
    counts as away."""
    remote_response_format: Literal["verbose_json", "json"] = "verbose_json"
    """`remote`: what is asked for. `json` is for models that know no times, such as
    `gpt-4o-transcribe`: the text of each slice is one segment then, without words."""
    model: str = DEFAULT
    """Model of this worker: a name of the catalogue such as `large-v3`, a repository of the model
    hub with a CTranslate2 model (`owner/name`), or a folder's path. It must be on this machine:
    `steno models pull`."""
    model_name: str = ""
    """Name by which jobs ask for it; empty: what `STENO_MODEL` says, or of a path the name of its
    folder."""
    model_dir: str = ""
    """Folder of models, where `steno models pull` puts them; empty: `steno/models` in the user's
    place for data."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; `auto`: cuda where there is one."""
    compute_type: str = "default"
    """CTranslate2's name of a number format, such as `int8` or `float32`; `default`: `int8` on the
    CPU; on a GPU `float16`, or `int8_float16` where its memory is short."""
    gpus: int = Field(1, ge=1)
    """GPUs that have a copy of the model each, and batches of their own; the CPU has one copy."""
    cpu_threads: int = Field(0, ge=0)
    """Threads of the model on the CPU; 0: one for each core, up to 8. Set it where several
    workers share a machine, or a container has fewer cores than its node."""
    beam_size: int = Field(5, ge=1, le=20)
    """Candidates that are followed while decoding; 1 is fastest. Where windows stand alone (tiny.en
    and base), it is 2 until a window's own score is low."""
    max_batch: int = Field(0, ge=0, le=256)
    """Windows that are decoded together at most, and slices in hand; 0: 16 on a GPU, 4 on
    the CPU. More need more memory, and the first words of a recording come later."""
    batch_window_ms: float = Field(5, ge=0, le=1000)
    """Milliseconds that a busy model waits at most for more windows to share its next batch."""
    job_address: str = "localhost:50052"
    """Address of the job service."""
    worker_id: str = Field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    """Name of this worker in the job service's logs; host and process id if not set."""
    task_report_seconds: float = Field(2, gt=0)
    """Seconds between two reports of progress. A cancelled job stops within this time and that of
    a window of 30 s."""
    slice_max_model_factor: float = Field(20, gt=0)
    """Model time by length of audio at which a slice is stopped, to be tried again. A model that
    needs longer is too slow for its machine."""
    model_call_max_seconds: float = Field(300, gt=0)
    """Seconds after which one call of the model, a batch of windows, is taken for hung: the process
    gives back what it holds, and ends in order to be started again."""
    recognize_max_calls: int = Field(16, ge=1)
    """Recognize calls at once; more are answered RESOURCE_EXHAUSTED."""
    live_max_windows: int = Field(32, ge=1)
    """Windows of live sessions at once; more are answered RESOURCE_EXHAUSTED, and those sessions
    fall behind."""

    @field_validator("remote_url", "remote_model")
    @classmethod
    def _needed_by_remote(cls, value: str, others: ValidationInfo) -> str:
        if others.data.get("engine") == "remote" and not value:
            raise ValueError("needed where STENO_ENGINE is remote")
        return value

    @field_validator("remote_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        if "@" in urlsplit(value).netloc:
            raise ValueError("must hold no user or password; a key goes into STENO_REMOTE_API_KEY")
        return value.rstrip("/")

    @field_validator("remote_api_key")
    @classmethod
    def _can_be_sent(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value().strip()  # files end with a new line
        if not re.fullmatch("[!-~]*", key):
            raise ValueError("must be printable ASCII without spaces")
        return SecretStr(key)
