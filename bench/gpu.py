"""`make bench-gpu`: Steno's engine beside faster-whisper's batched pipeline, on the same GPU.

Both hear the same hour of speech, or as much of it as there is time for, with beam 5 and with
batches of the same size: with the model `base`, and with one of large-v3's shape whose weights are
random. It takes eight minutes at most. Without a GPU, `--device cpu --shape tiny` runs the same
code on a minute of speech, to try the script.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform as machine
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import ctranslate2

from bench.engines import BEAM_SIZE, COMPUTE_TYPE, Batched, Run, Side, Steno, nvidia_smi
from bench.natural import Recording, beginning, compare, half_an_hour, recordings
from bench.shape import SHAPES, make
from steno.models import ModelError, entry_of, store_at

REAL = "base"
BATCH_SIZES = {"cpu": (4,), "cuda": (16, 8, 32)}
"""The one that a worker has unless it is told otherwise comes first."""
MOST_AUDIO_SECONDS = {"cpu": 60, "cuda": 3600}
"""As long as there is time for it."""

TOTAL_SECONDS = 450
"""For all; what is begun then still has to end."""
REAL_SECONDS = 150
"""For the first model; the other has the rest."""
WARM_UP_SECONDS, PART_SECONDS = 10, 40
"""What the second warm-up and each part are to take, if there is so much audio and time."""

RATIO_AIM, BUSY_AIM = 1.0, 0.95


@dataclass(frozen=True)
class Model:
    """One that both load.

    Attributes:
        name: for the table.
        catalogued: by which the catalogue knows it, or the one whose shape it has.
        folder: its files.
        understands: its text can be held against what is said.
    """

    name: str
    catalogued: str
    folder: Path
    understands: bool


@dataclass(frozen=True)
class Row:
    """Both with one model and one size of batches.

    Attributes:
        model: its name.
        batch_size: windows that are decoded together at most.
        audio_seconds: length of what both heard.
        steno: audio seconds a second.
        batched: the same of faster-whisper's batched pipeline.
        ratio: Steno over faster-whisper.
        busy: share of the time in which the GPU works while Steno hears, 0 to 1.
        busy_by: who tells that: `nvidia-smi`, or else Steno's `batcher`, for which the GPU works as
            long as a call of the model lasts.
        batcher_busy: what the batcher tells, in any case.
        batched_busy: what nvidia-smi tells of faster-whisper; None where it is not there.
        windows_a_batch: mean of Steno's.
        wrong: share of words that Steno understands wrongly; None where the model can't tell.
        batched_wrong: the same of faster-whisper.
    """

    model: str
    batch_size: int
    audio_seconds: float
    steno: float
    batched: float
    ratio: float
    busy: float
    busy_by: str
    batcher_busy: float
    batched_busy: float | None
    windows_a_batch: float
    wrong: float | None
    batched_wrong: float | None


class Clock:
    """The time that is left."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def left(self, until: float) -> float:
        """Seconds until so many have passed since the start."""
        return until - (time.monotonic() - self._began)


def models(shape: str, folder: Path) -> Iterator[Model]:
    """The one that is published, if this machine has it; then the one of random weights."""
    try:
        yield Model(REAL, REAL, store_at().open(REAL).folder, understands=True)
    except ModelError as error:
        print(f"{error} --from index. It is left out here.", flush=True)
    began = time.monotonic()
    made = make(folder / shape, SHAPES[shape])
    print(f"a model of {shape}'s shape was made in {time.monotonic() - began:.0f} s", flush=True)
    yield Model(f"{shape}'s shape", shape, made, understands=False)


class Comparison:
    """What is measured, and what is left out for want of time or memory."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.rows: list[Row] = []
        self.left_out: list[str] = []
        self._clock = Clock()
        self._speech = half_an_hour() if device == "cuda" else [_minute()]

    def measure(self, model: Model, until: float) -> None:
        """Measures one model.

        Args:
            model: it is loaded twice.
            until: when that is to be over, in seconds since the start.
        """
        entry = entry_of(model.catalogued)
        windows = entry.windows if entry else None
        batched = Batched(model.folder, self.device)
        with closing(Steno(model.folder, self.device, windows)) as steno:
            try:
                speed = self._warm_up((batched, steno), until)
            except TimeoutError:
                self.left_out.append(f"{model.name}: it is too slow here")
                return
            sizes = BATCH_SIZES[self.device]
            part = min(PART_SECONDS, 0.8 * self._clock.left(until) / (2 * len(sizes)))
            spoken = self._fitting(speed * part)
            for size in sizes:
                try:
                    runs = [self._run(side, spoken, size, until) for side in (batched, steno)]
                except TimeoutError:
                    self.left_out.append(f"{model.name}, batches of {size}: no time was left")
                except RuntimeError as error:
                    if "out of memory" not in str(error):
                        raise
                    self.left_out.append(f"{model.name}, batches of {size}: memory is too short")
                else:
                    self.rows.append(_row(model, size, spoken, *runs))
                    print(table(self.rows[-1:]), flush=True)

    def _warm_up(self, sides: Sequence[Side], until: float) -> float:
        """Audio seconds a second of the slower one, the second time where that is a longer run."""
        size = BATCH_SIZES[self.device][0]

        def speed(spoken: Sequence[Recording]) -> float:
            slowest = max(self._run(side, spoken, size, until).seconds for side in sides)
            return sum(each.seconds for each in spoken) / slowest

        first = self._fitting(0)
        found = speed(first)
        second = self._fitting(found * WARM_UP_SECONDS)
        return speed(second) if len(second) > len(first) else found

    def _run(self, side: Side, spoken: Sequence[Recording], size: int, until: float) -> Run:
        limit = self._clock.left(until)
        if limit <= 0:
            raise TimeoutError
        return side.run(spoken, size, limit)

    def _fitting(self, seconds: float) -> list[Recording]:
        """Recordings that last no longer, but one at least; the first ones again after the last."""
        left = min(seconds, MOST_AUDIO_SECONDS[self.device])
        chosen: list[Recording] = []
        for recording in itertools.cycle(self._speech):
            left -= recording.seconds
            if chosen and left < 0:
                break
            chosen.append(recording)
        return chosen


def _minute() -> Recording:
    return beginning(recordings()[0], MOST_AUDIO_SECONDS["cpu"])


def _row(model: Model, size: int, spoken: Sequence[Recording], batched: Run, steno: Run) -> Row:
    assert steno.batcher_busy is not None
    assert steno.windows_a_batch is not None
    seconds = sum(each.seconds for each in spoken)
    said = " ".join(each.text for each in spoken)

    def wrong(run: Run) -> float | None:
        return compare([said], [run.text]).wer if model.understands else None

    return Row(
        model.name,
        size,
        seconds,
        seconds / steno.seconds,
        seconds / batched.seconds,
        batched.seconds / steno.seconds,
        steno.batcher_busy if steno.gpu_busy is None else steno.gpu_busy,
        "batcher" if steno.gpu_busy is None else "nvidia-smi",
        steno.batcher_busy,
        batched.gpu_busy,
        steno.windows_a_batch,
        wrong(steno),
        wrong(batched),
    )


HEADS = (
    "model", "batch", "audio", "Steno", "faster-whisper batched", f"ratio (aim {RATIO_AIM:.2f})",
    f"busy (aim {BUSY_AIM:.2f})", "told by", "batcher busy", "busy with faster-whisper",
    "windows a batch", "wrong words", "those of faster-whisper",
)  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """As Markdown; speeds are audio seconds a second."""

    def share(value: float | None, digits: int = 0) -> str:
        return "" if value is None else f"{100 * value:.{digits}f} %"

    lines = [HEADS, ["---"] * len(HEADS)]
    lines += [
        [
            row.model, f"{row.batch_size}", f"{row.audio_seconds / 60:.0f} min",
            f"{row.steno:.1f}", f"{row.batched:.1f}", f"{row.ratio:.2f}", share(row.busy),
            row.busy_by, share(row.batcher_busy), share(row.batched_busy),
            f"{row.windows_a_batch:.1f}", share(row.wrong, 2), share(row.batched_wrong, 2),
        ]
        for row in rows
    ]  # fmt: skip
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def about(device: str) -> str:
    """Where it was measured, and what it is worth."""
    where = nvidia_smi("name") or "a GPU that nvidia-smi does not know"
    if device == "cpu":
        where = f"a CPU ({machine.machine()})"
    told = (
        f"On {where}, in {COMPUTE_TYPE[device]}, beam {BEAM_SIZE}, CTranslate2 "
        f"{version('ctranslate2')}, faster-whisper {version('faster-whisper')}. "
        f"Batches of {BATCH_SIZES[device][0]} windows are a worker's default."
    )
    if device == "cpu":
        told += "\nTHESE ARE NO GPU FIGURES: they only show that the script runs."
    return told


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--device", choices=sorted(BATCH_SIZES), default="cuda")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="large-v3")
    parser.add_argument("--out", type=Path, help="a file for the figures, as JSON")
    options = parser.parse_args()
    if options.device == "cuda" and not ctranslate2.get_cuda_device_count():
        print("There is no GPU here, so nothing was measured (--device cpu tries the script).")
        return
    comparison = Comparison(options.device)
    with tempfile.TemporaryDirectory(prefix="steno-bench-") as folder:
        for model in models(options.shape, Path(folder)):
            comparison.measure(model, REAL_SECONDS if model.understands else TOTAL_SECONDS)
    where = about(options.device)
    print(f"{where}\n\n{table(comparison.rows)}")
    for each in comparison.left_out:
        print(f"left out: {each}")
    if options.out:
        told = {
            "about": where,
            "device": options.device,
            "rows": [asdict(row) for row in comparison.rows],
            "left_out": comparison.left_out,
        }
        options.out.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
