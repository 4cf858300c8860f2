"""Between the contracts and the domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from steno.audio import SAMPLE_BYTES, to_float
from steno.platform.errors import InvalidArgument, Violation
from steno.speech import parse_options, render_segment
from steno.transcript import Options, Segment
from steno.transcription.domain import ModelNotServed, ServedModel
from steno.transcription.engine import Engine, Samples
from steno.v1 import transcript_pb2 as pb


def parse_config(config: pb.RecognitionConfig, engine: Engine) -> Options:
    """Reads options, which then name the model; refuses those that it cannot honour.

    Raises:
        ModelNotServed: another model is asked for.
        InvalidArgument: names each option that is refused.
    """
    model = engine.model
    if config.model not in ("", model.name):
        raise ModelNotServed(config.model, model.name)
    options = replace(parse_options(config), model=model.name)
    refused = engine.refusals(options)
    if refused:
        raise InvalidArgument([Violation(f"config.{each.option}", each.why) for each in refused])
    return options


def parse_samples(samples: bytes) -> Samples:
    """Reads signed 16-bit samples. Raises InvalidArgument for half a sample."""
    if len(samples) % SAMPLE_BYTES:
        raise InvalidArgument.of("samples", f"must be whole samples of {SAMPLE_BYTES} bytes")
    return to_float(np.frombuffer(samples, dtype="<i2"))


def render_model(model: ServedModel) -> pb.ModelInfo:
    """A worker serves one model: the one that is meant when a request names none."""
    return pb.ModelInfo(
        name=model.name,
        revision=model.revision,
        compute_type=model.compute_type,
        device=model.device,
        language_codes=model.languages,
        is_default=True,
    )


def render_found(segments: Sequence[Segment]) -> tuple[list[pb.Segment], list[pb.Segment]]:
    """Segments that are kept, and those that are dropped; each are numbered from 0."""
    kept = [segment for segment in segments if not segment.is_dropped]
    return _numbered(kept), _numbered([s for s in segments if s.is_dropped])


def _numbered(segments: Sequence[Segment]) -> list[pb.Segment]:
    return [render_segment(replace(each, index=index)) for index, each in enumerate(segments)]
