"""Trains the model: ``python -m tools.builtin_model train``.

Training lasts as many minutes as one gives it, in stages of growing windows, and goes on where it
stopped. Beside the transcript the network learns which phoneme and word each frame belongs to and
where its attention shall look: espeak-ng tells all three, and learning is far quicker so.
"""

from __future__ import annotations

import multiprocessing
import pickle
import random
import time
from dataclasses import asdict, dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from queue import Empty
from typing import Any

import torch
import torch.nn.functional as F

from . import corpus, tokenizer
from .model import (
    ALIGNMENT_HEADS,
    CLOCK_CHANNELS,
    CLOCK_HEAD,
    PREVIOUS_WORD_HEADS,
    Size,
    Whisper,
)
from .windows import IGNORED, Batch, Composer, batch


@dataclass(frozen=True)
class Shape:
    """A kind of batch: windows of `seconds`, `size` of them."""

    seconds: int
    size: int
    anywhere: bool
    prompts: bool


SHORT = Shape(5, 18, anywhere=True, prompts=False)
MIDDLE = Shape(12, 8, anywhere=True, prompts=False)
FULL = Shape(30, 4, anywhere=False, prompts=True)
PLAN = (
    (0.10, (1.0, 0.0, 0.0)),
    (0.45, (0.35, 0.45, 0.2)),
    (0.60, (0.1, 0.5, 0.4)),
    (1.0, (0.05, 0.25, 0.7)),
)
"""Until which part of the training which kinds of batch are drawn how often."""

PEAK_RATE = 1.5e-3
CLOCK_TIMES = 4
"""How much faster the one matrix learns that makes the embeddings of time tokens."""
WARM_UP = 300
DECAY_OF_AVERAGE = 0.996


def phoneme_numbers(spoken: corpus.Corpus) -> dict[str, int]:
    """Every phoneme of the corpus; 0 is silence."""
    names = {name for _, group in spoken.groups for s in group for _, name in s.phonemes}
    sounds = sorted(name for name in names if name and not name.startswith("_"))
    return {name: number for number, name in enumerate(sounds, 1)}


def compose(
    folder: Path, phonemes: dict[str, int], seed: int, progress: Synchronized[float], out: Any
) -> None:
    """The other process: puts batches into the queue for ever."""
    torch.set_num_threads(1)
    ids = tokenizer.Ids(tokenizer.build())
    composer = Composer(corpus.Corpus(folder), ids, phonemes)
    rng = random.Random(seed)
    while True:
        shares = next(shares for until, shares in PLAN if progress.value <= until or until == 1.0)
        shape = rng.choices((SHORT, MIDDLE, FULL), shares)[0]
        windows = [
            composer.window(rng, shape.seconds, anywhere=shape.anywhere, prompts=shape.prompts)
            for _ in range(shape.size)
        ]
        made = batch(windows, ids.end)
        made.mel = made.mel.half()
        out.put(pickle.dumps((shape, made)))


def losses(network: Whisper, made: Batch) -> dict[str, torch.Tensor]:
    """What is wrong with the transcript, the frames and the attention."""
    memory, middle = network.encoder(made.mel, made.places)
    states, seen = network.decoder(made.tokens, memory)
    known = made.labels != IGNORED
    text = F.cross_entropy(network.logits(states[known]).float(), made.labels[known])
    words, before = (
        F.cross_entropy(head(memory).float().flatten(0, 1), made.words[:, row].flatten())
        for row, head in enumerate((network.word_of_frame, network.word_before_frame))
    )
    sounds = F.cross_entropy(
        network.phoneme_of_frame(middle).float().flatten(0, 1), made.phonemes.flatten()
    )
    heard = made.looks[..., 0] >= 0
    frames = torch.arange(memory.shape[1])
    target = (frames >= made.looks[..., :1]) & (frames < made.looks[..., 1:])
    misses = []
    for layer, head in ALIGNMENT_HEADS:
        mass = (seen[layer][:, head] * target).sum(-1)[heard]
        misses.append(-(mass + 1e-4).log().mean())
    for layer, head in PREVIOUS_WORD_HEADS:
        mass = (seen[layer][:, head, 1:] * target[:, :-1]).sum(-1)[heard[:, :-1]]
        misses.append(-(mass + 1e-4).log().mean())
    looks = torch.stack(misses).mean()
    layer, head = CLOCK_HEAD
    values = (
        network.decoder.layers[layer]
        .encoder_attn.v_proj(memory)
        .unflatten(-1, (seen[0].shape[1], -1))
    )
    times = network.decoder.clock[made.places[:, None] + frames][..., CLOCK_CHANNELS]
    clock = F.mse_loss(values[..., head, :].float(), times)
    return {
        "text": text, "words": words, "before": before, "sounds": sounds, "looks": looks,
        "clock": clock,
    }  # fmt: skip


WEIGHTS = {"text": 1.0, "words": 0.5, "before": 0.3, "sounds": 0.2, "looks": 0.5, "clock": 1.0}


def rate(progress: float, step: int) -> float:
    """The share of the learning rate: up in a moment, then down along a half cosine."""
    down = 0.01 + 0.99 * 0.5 * (1 + float(torch.cos(torch.tensor(progress * torch.pi))))
    return min(1.0, (step + 1) / WARM_UP) * down


def train(folder: Path, work: Path, minutes: float, seed: int, threads: int) -> None:
    """Trains until the minutes are used up; a checkpoint is written every two."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    work.mkdir(parents=True, exist_ok=True)
    phonemes = phoneme_numbers(corpus.Corpus(folder))
    ids = tokenizer.Ids(tokenizer.build())
    size = Size()
    network = Whisper(size, ids.size, ids.classes + 1, len(phonemes) + 1)
    trained = [p for p in network.parameters() if p.requires_grad]
    print(f"{sum(p.numel() for p in trained) / 1e6:.2f} million parameters", flush=True)
    clock = [network.decoder.embed_times.weight]
    rest = [parameter for parameter in trained if parameter is not clock[0]]
    optimizer = torch.optim.AdamW(
        [{"params": rest}, {"params": clock}],
        lr=PEAK_RATE,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        fused=True,
    )
    average = {name: value.clone() for name, value in network.state_dict().items()}
    step, used, heard_hours = 0, 0.0, 0.0
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        average, step, used = saved["average"], saved["step"], saved["used"]
        heard_hours = saved["hours"]
    context = multiprocessing.get_context("spawn")
    progress: Synchronized[float] = context.Value("d", used / (60 * minutes))  # type: ignore[assignment]
    queue = context.Queue(6)
    composer = context.Process(
        target=compose, args=(folder, phonemes, seed + step, progress, queue), daemon=True
    )
    composer.start()

    def save() -> None:
        state = {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average, "step": step, "used": used, "hours": heard_hours,
            "size": asdict(size), "minutes": minutes, "seed": seed,
        }  # fmt: skip
        torch.save(state, work / "checkpoint.new")
        (work / "checkpoint.new").replace(checkpoint)

    shown: dict[str, float] = {}
    began, last_save, waited = time.monotonic(), time.monotonic(), 0.0
    before = used
    while progress.value < 1.0:
        asked = time.monotonic()
        try:
            shape, made = pickle.loads(queue.get(timeout=120))
        except Empty:
            raise RuntimeError("the composing process has ended") from None
        waited += time.monotonic() - asked
        made.mel = made.mel.float()
        for group, times in zip(optimizer.param_groups, (1, CLOCK_TIMES), strict=True):
            group["lr"] = times * PEAK_RATE * rate(progress.value, step)
        with torch.autocast("cpu", torch.bfloat16):
            parts = losses(network, made)
        loss = sum(WEIGHTS[name] * value for name, value in parts.items())
        network.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        step += 1
        keep = min(DECAY_OF_AVERAGE, step / (step + 10))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                average[name].lerp_(value, 1 - keep)
        heard_hours += shape.seconds * shape.size / 3600
        for name, value in parts.items():
            key = f"{name}{shape.seconds}"
            shown[key] = 0.95 * shown.get(key, float(value)) + 0.05 * float(value)
        used = before + time.monotonic() - began
        progress.value = used / (60 * minutes)
        if step % 25 == 0:
            numbers = " ".join(f"{name} {value:.3f}" for name, value in sorted(shown.items()))
            print(
                f"step {step} minute {used / 60:.1f} hours {heard_hours:.1f} "
                f"waited {waited:.0f} s | {numbers}",
                flush=True,
            )
        if time.monotonic() - last_save > 120:
            save()
            last_save = time.monotonic()
    progress.value = 1.0
    save()
    composer.terminate()
    print(f"trained on {heard_hours:.0f} hours of audio in {step} steps")
