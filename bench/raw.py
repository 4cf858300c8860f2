"""`python -m bench.raw`: faster-whisper by itself, in one process, with the same model and threads.

Prints one line of JSON: the seconds that it took, without loading, and the words of each file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel, decode_audio

OPTIONS = {"language": "en", "beam_size": 5, "temperature": [0.0]}


def main() -> None:
    """Reads the files' names from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("how", choices=("sequential", "batched", "clips", "load"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_intermixed_args()
    model = WhisperModel(options.model, device="cpu", cpu_threads=options.threads)
    batched = BatchedInferencePipeline(model)
    for vad_filter in (True, False):  # as a worker does before it is ready
        silence = np.zeros(16_000, np.float32)
        list(model.transcribe(silence, language="en", vad_filter=vad_filter)[0])
    if options.how == "load":
        print("ready", flush=True)
        sys.stdin.read()
        return
    began = time.perf_counter()
    words = []
    if options.how == "clips":  # one window for each clip, in full batches: the limit
        clips = [decode_audio(str(file)) for file in options.files]
        ends = np.cumsum([len(clip) for clip in clips]) / 16_000
        starts = [0.0, *ends[:-1]]
        windows = [{"start": a, "end": b} for a, b in zip(starts, ends, strict=True)]
        segments, _ = batched.transcribe(
            np.concatenate(clips), batch_size=options.batch, clip_timestamps=windows,
            vad_filter=False, **OPTIONS,
        )  # fmt: skip
        words = [len(segment.text.split()) for segment in segments]
    for file in options.files if options.how != "clips" else ():
        audio = decode_audio(str(file))
        if options.how == "batched":
            segments, _ = batched.transcribe(audio, batch_size=options.batch, **OPTIONS)
        else:
            segments, _ = model.transcribe(
                audio, vad_filter=True, condition_on_previous_text=False, **OPTIONS
            )
        words.append(sum(len(segment.text.split()) for segment in segments))
    print(json.dumps({"seconds": time.perf_counter() - began, "words": words}))


if __name__ == "__main__":
    main()
