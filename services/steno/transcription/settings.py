"""The environment of the transcription service."""

from __future__ import annotations

import os
import socket
from typing import Literal

from pydantic import Field

from steno.models.catalogue import DEFAULT
from steno.platform.settings import NatsSettings, ProcessSettings, S3Settings, SandboxSettings


class Settings(ProcessSettings, NatsSettings, S3Settings, SandboxSettings):
    """What `python -m steno.transcription` reads."""

    listen: str = "0.0.0.0:50053"
    """Address of the gRPC server, `host:port`; port 0 takes a free one."""
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
