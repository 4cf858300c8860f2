"""`python -m bench.raw`: faster-whisper by itself, in one process, with the same model and threads.

Prints one line of JSON: the seconds that it took, without loading, and what it heard in each file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel, decode_audio


def main() -> None:
    """Reads the files' names from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("how", choices=("sequential", "batched", "clips", "load"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--language", default="en")
    parser.add_argument("--words", action="store_true", help="tell when each word is said")
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_intermixed_args()
    model = WhisperModel(
        options.model, device="cpu", compute_type="int8", cpu_threads=options.threads
    )
    batched = BatchedInferencePipeline(model)
    for vad_filter in (True, False):  # as a worker does before it is ready
        silence = np.zeros(16_000, np.float32)
        list(model.transcribe(silence, language="en", vad_filter=vad_filter)[0])
    if options.how == "load":
        print("ready", flush=True)
        sys.stdin.read()
        return
    asked = {"language": options.language, "beam_size": 5, "word_timestamps": options.words}
    began = time.perf_counter()
    found = []
    if options.how == "clips":  # one window for each clip, in full batches: the limit
        clips = [decode_audio(str(file)) for file in options.files]
        ends = np.cumsum([len(clip) for clip in clips]) / 16_000
        starts = [0.0, *ends[:-1]]
        windows = [{"start": a, "end": b} for a, b in zip(starts, ends, strict=True)]
        segments, _ = batched.transcribe(
            np.concatenate(clips), batch_size=options.batch, clip_timestamps=windows,
            vad_filter=False, **asked,
        )  # fmt: skip
        found.append(_heard(segments))
    for file in options.files if options.how != "clips" else ():
        audio = decode_audio(str(file))
        if options.how == "batched":
            segments, _ = batched.transcribe(audio, batch_size=options.batch, **asked)
        else:
            segments, _ = model.transcribe(audio, **asked)
        found.append(_heard(segments))
    print(json.dumps({"seconds": time.perf_counter() - began, "found": found}))


def _heard(segments: Iterable[Any]) -> dict[str, Any]:
    told = list(segments)
    return {
        "text": "".join(segment.text for segment in told),
        "words": [(word.start, word.end) for segment in told for word in segment.words or ()],
    }


if __name__ == "__main__":
    main()
