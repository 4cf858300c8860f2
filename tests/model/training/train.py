"""Trains the model: ``python -m model.training train``, and then ``refine``.

Training lasts as many minutes as one gives it, in stages of growing windows, and goes on where it
stopped. Refining begins at what training came to. Beside the transcript the network learns which
phoneme and word each frame belongs to and where its attention shall look: espeak-ng tells all
three, and learning is far quicker so.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import random
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from queue import Empty
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import corpus, tokenizer
from .model import ALIGNMENT_HEADS, PREVIOUS_WORD_HEADS, Size, Whisper
from .windows import IGNORED, Batch, Composer, batch


@dataclass(frozen=True)
class Shape:
    """A kind of batch: windows of `seconds`, `size` of them."""

    seconds: int
    size: int
    anywhere: bool
    prompts: bool


SHORT = Shape(6, 8, anywhere=True, prompts=False)
MIDDLE = Shape(12, 6, anywhere=True, prompts=False)
FULL = Shape(30, 3, anywhere=False, prompts=True)


@dataclass(frozen=True)
class Plan:
    """What is learnt when; times are parts of the whole, from 0 to 1."""

    kinds: tuple[tuple[float, tuple[float, float, float]], ...]
    """Until when short, middle and full windows are drawn how often."""
    rate: float
    """Of the peak learning rates."""
    listening: float = 0.0
    """Until when only the encoder learns: its frames are named, cheaply."""
    telling: float = math.inf
    """From when on only the decoder learns: its steps cost little then, for what the encoder makes
    of a window is computed once."""


ANEW = Plan(
    kinds=(
        (0.15, (1.0, 0.0, 0.0)), (0.25, (0.6, 0.4, 0.0)), (0.85, (0.3, 0.45, 0.25)),
        (1.0, (0.0, 0.0, 1.0)),
    ),
    rate=1.0, listening=0.15, telling=0.85,
)  # fmt: skip
REFINED = Plan(kinds=((1.0, (0.04, 0.16, 0.80)),), rate=0.2)
"""Both parts learn together once more, mostly on whole windows; this halves the errors."""

MATRIX_RATE = 1e-2
"""Peak learning rate of the matrices inside the layers, which Muon turns (Jordan et al. 2024)."""
PEAK_RATE = 2e-3
"""That of everything else, by AdamW."""
WARM_UP = 100
TELLING_RATE = 0.12
"""The share of the learning rate at which the decoder learns alone; more makes it forget."""
WORDS_MISHEARD, TIMES_MISHEARD = 0.05, 0.06
"""Shares of the tokens that are replaced in what the decoder reads: by another word, by a time up
to 0.16 s away. So a mistake of its own does not lead it astray, and it can't learn by heart."""
DECAY_OF_AVERAGE = 0.998
LAST_WEIGHT = 4.0
"""How much more the last two tokens of a transcript count. There the model says whether a sentence
begins in what is left of the window; if it misses that, faster-whisper skips its first words."""
USES_OF_A_BATCH = 4
"""A batch is drawn so often at most: composing one takes half as long as learning from it."""
KEPT_BATCHES = 250
"""Batches of each kind to draw from."""


def phoneme_numbers(spoken: corpus.Corpus) -> dict[str, int]:
    """Every phoneme of the corpus; 0 is silence."""
    names = {name for _, group in spoken.groups for s in group for _, name in s.phonemes}
    sounds = sorted(name for name in names if name and not name.startswith("_"))
    return {name: number for number, name in enumerate(sounds, 1)}


def draw_shape(rng: random.Random, plan: Plan, progress: float) -> Shape:
    """The kind of the next batch."""
    shares = next(shares for until, shares in plan.kinds if progress < until or until == 1.0)
    return rng.choices((SHORT, MIDDLE, FULL), shares)[0]


def compose(
    folder: Path,
    phonemes: dict[str, int],
    seed: str,
    plan: Plan,
    progress: Synchronized[float],
    out: Any,
) -> None:
    """The other process: puts batches into the queue for ever."""
    torch.set_num_threads(1)
    os.nice(10)
    ids = tokenizer.Ids(tokenizer.build())
    composer = Composer(corpus.Corpus(folder), ids, phonemes)
    rng = random.Random(seed)
    while True:
        shape = draw_shape(rng, plan, progress.value)
        windows = [
            composer.window(rng, shape.seconds, anywhere=shape.anywhere, prompts=shape.prompts)
            for _ in range(shape.size)
        ]
        made = batch(windows, ids.end)
        made.mel = made.mel.half()
        out.put(pickle.dumps((shape, made)))


class Batches:
    """Batches as they come from the composing process; each is drawn a few times."""

    def __init__(self, queue: Any, rng: random.Random) -> None:
        self._queue = queue
        self._rng = rng
        self._kept: defaultdict[Shape, list[tuple[int, Batch]]] = defaultdict(list)
        self.waited = 0.0

    def draw(self, shape: Shape) -> Batch:
        """A batch of a kind; waits while too few are there to draw from."""
        kept = self._kept[shape]
        while self._take(wait=len(kept) < 12):
            pass
        place = self._rng.randrange(len(kept))
        uses, made = kept[place]
        if uses + 1 == USES_OF_A_BATCH:
            kept[place] = kept[-1]
            kept.pop()
        else:
            kept[place] = (uses + 1, made)
        return made

    def _take(self, *, wait: bool) -> bool:
        asked = time.monotonic()
        try:
            shape, made = pickle.loads(self._queue.get(wait, timeout=120))
        except Empty:
            if wait:
                raise RuntimeError("the composing process has ended") from None
            return False
        self.waited += time.monotonic() - asked
        kept = self._kept[shape]
        if len(kept) == KEPT_BATCHES:
            kept[self._rng.randrange(len(kept))] = (0, made)
        else:
            kept.append((0, made))
        return True


def misheard(made: Batch, ids: tokenizer.Ids, words: Tensor) -> Tensor:
    """What the decoder reads, with some mistakes in it; `words` are the tokens of all words."""
    tokens = made.tokens.clone()
    wrong = torch.isin(tokens, words) & (torch.rand(tokens.shape) < WORDS_MISHEARD)
    tokens[wrong] = words[torch.randint(len(words), (int(wrong.sum()),))]
    late = (tokens >= ids.time_zero) & (torch.rand(tokens.shape) < TIMES_MISHEARD)
    moved = tokens[late] + torch.randint(-8, 9, (int(late.sum()),))
    tokens[late] = moved.clamp(ids.time_zero, ids.size - 1)
    return tokens


def named_frames(network: Whisper, made: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The encoder's frames, and what is wrong with the names that they get."""
    memory, middle = network.encoder(made.mel.float(), made.places)
    words, before = (
        F.cross_entropy(head(memory).float().flatten(0, 1), made.words[:, row].flatten())
        for row, head in enumerate((network.word_of_frame, network.word_before_frame))
    )
    sounds = F.cross_entropy(
        network.phoneme_of_frame(middle).float().flatten(0, 1), made.phonemes.flatten()
    )
    return memory, {"words": words, "before": before, "sounds": sounds}


def told(
    network: Whisper, memory: Tensor, tokens: Tensor, made: Batch, ids: tokenizer.Ids
) -> dict[str, Tensor]:
    """What is wrong with the transcript and with where the attention looks.

    tokens: what the decoder reads; those of the batch, or those with mistakes in them.
    """
    states, seen = network.decoder(tokens, memory)
    known = made.labels != IGNORED
    wrong = F.cross_entropy(
        network.logits(states[known]).float(), made.labels[known], reduction="none"
    )
    weights = 1.0 + (LAST_WEIGHT - 1.0) * last_labels(made.labels, known)[known]
    text = (wrong * weights).sum() / weights.sum()
    heard = made.looks[..., 0] >= 0
    frames = torch.arange(memory.shape[1])
    target = (frames >= made.looks[..., :1]) & (frames < made.looks[..., 1:])
    misses = []
    for layer, head in ALIGNMENT_HEADS:
        mass = (seen[layer][:, head] * target).sum(-1)[heard]
        misses.append(-(mass + 1e-4).log().mean())
    # A time token has its clock itself, and what was not said can't be found.
    said = heard[:, :-1] & (made.labels[:, :-1] < ids.time_zero)
    said &= tokens[:, 1:] == made.tokens[:, 1:]
    for layer, head in PREVIOUS_WORD_HEADS:
        mass = (seen[layer][:, head, 1:] * target[:, :-1]).sum(-1)[said]
        misses.append(-(mass + 1e-4).log().mean())
    return {"text": text, "looks": torch.stack(misses).mean()}


def last_labels(labels: Tensor, known: Tensor) -> Tensor:
    """1 where a transcript ends: at its end token and the one before; 0 elsewhere."""
    to_come = known.flip(1).cumsum(1).flip(1)
    return (known & (to_come <= 2)).float()


WEIGHTS = {"text": 1.0, "words": 1.0, "before": 0.3, "sounds": 0.3, "looks": 0.5}


def rate(plan: Plan, progress: float, step: int) -> float:
    """The share of the learning rate: up in a moment, then down; once more for the decoder.

    step: since the stage began.
    """
    if progress > plan.telling:
        down = TELLING_RATE * half_cosine((progress - plan.telling) / (1 - plan.telling))
    else:
        down = plan.rate * half_cosine(progress / min(1.0, plan.telling))
    return min(1.0, (step + 1) / WARM_UP) * down


def half_cosine(share: float) -> float:
    """From 1 down to 0.01."""
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))


def learners(network: nn.Module) -> tuple[list[nn.Parameter], list[torch.optim.Optimizer]]:
    """What is to be learnt, and by whom: matrices inside the layers by Muon, the rest by AdamW."""
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    matrices = [p for name, p in trained.items() if "layers." in name and p.dim() == 2]
    turned = {id(p) for p in matrices}
    rest = [p for p in trained.values() if id(p) not in turned]
    return [*trained.values()], [
        torch.optim.Muon(
            matrices, lr=MATRIX_RATE, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    ]


def train(
    folder: Path, work: Path, minutes: float, seed: int, threads: int, *, refining: int = 0
) -> None:
    """Trains until the minutes are used up; a checkpoint is written every two.

    refining: which time the model is refined, from 1 on, beginning at the averaged weights of what
        came before; 0 is the training itself. What is done already is not done again.
    """
    plan = REFINED if refining else ANEW
    checkpoint = work / "checkpoint.pt"
    saved = torch.load(checkpoint) if checkpoint.exists() else None
    if saved and saved["refining"] > refining:
        return
    begins = saved is None or saved["refining"] < refining
    if refining and begins and not (saved and saved["used"] >= 60 * saved["minutes"]):
        raise SystemExit(f"{checkpoint} is not that of a training that has ended: train first")
    spoken = corpus.Corpus(folder)
    if not spoken.groups:
        raise SystemExit(f"no speech in {folder}: make it by python -m model.training corpus")
    torch.manual_seed(1000 * refining + seed)
    torch.set_num_threads(threads)
    work.mkdir(parents=True, exist_ok=True)
    phonemes = saved["phonemes"] if saved else phoneme_numbers(spoken)
    ids = tokenizer.Ids(tokenizer.build())
    words = torch.tensor(sorted(ids.class_of))
    size = Size()
    network = Whisper(size, ids.size, ids.classes + 1, len(phonemes) + 1)
    trained, optimizers = learners(network)
    count = sum(p.numel() for p in network.parameters() if p.requires_grad)
    print(f"{count / 1e6:.2f} million parameters", flush=True)
    average = {name: value.clone() for name, value in network.state_dict().items()}
    step, used, heard_hours, stage_began = 0, 0.0, 0.0, 0
    telling = False

    def only_tell() -> None:
        """The encoder stays as it is from now on, at its average; so the decoder begins at its."""
        nonlocal trained, optimizers, telling, stage_began
        telling, stage_began = True, step
        network.load_state_dict(average)
        network.encoder.requires_grad_(False)
        trained, optimizers = learners(network.decoder)

    if saved and begins:
        average = saved["average"]
        network.load_state_dict(average)
    elif saved:
        step, used, heard_hours = saved["step"], saved["used"], saved["hours"]
        if saved["telling"]:
            only_tell()
            stage_began = saved["stage_began"]
        network.load_state_dict(saved["network"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        average = saved["average"]
    context = multiprocessing.get_context("spawn")
    progress: Synchronized[float] = context.Value("d", used / (60 * minutes))  # type: ignore[assignment]
    queue = context.Queue(6)
    composer = context.Process(
        target=compose,
        args=(folder, phonemes, f"{seed}-{refining}-{step}", plan, progress, queue),
        daemon=True,
    )
    composer.start()

    def save() -> None:
        state = {
            "network": network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "average": average, "step": step, "used": used, "hours": heard_hours,
            "telling": telling, "stage_began": stage_began,
            "size": asdict(size), "minutes": minutes, "seed": seed, "phonemes": phonemes,
            "refining": refining,
        }  # fmt: skip
        torch.save(state, work / "checkpoint.new")
        (work / "checkpoint.new").replace(checkpoint)

    shown: dict[str, float] = {}
    rng = random.Random(f"{seed}-{refining}-{step}")
    batches = Batches(queue, rng)
    began = last_save = time.monotonic()
    before = used
    while progress.value < 1.0:
        shape = draw_shape(rng, plan, progress.value)
        made = batches.draw(shape)
        share = rate(plan, progress.value, step - stage_began)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = optimizer.defaults["lr"] * share
        with torch.autocast("cpu", torch.bfloat16):
            if telling:
                if made.memory is None:
                    with torch.no_grad():
                        made.memory = network.encoder(made.mel.float(), made.places)[0].bfloat16()
                parts = told(network, made.memory, misheard(made, ids, words), made, ids)
            else:
                memory, parts = named_frames(network, made)
                if progress.value >= plan.listening:
                    parts |= told(network, memory, misheard(made, ids, words), made, ids)
        loss = torch.stack([WEIGHTS[name] * value for name, value in parts.items()]).sum()
        network.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        network.encoder.keep_clock()
        network.decoder.keep_places()
        step += 1
        since = step - stage_began
        keep = min(DECAY_OF_AVERAGE, since / (since + 10))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                average[name].lerp_(value, 1 - keep)
        heard_hours += shape.seconds * shape.size / 3600
        for name, value in parts.items():
            key = f"{name}{shape.seconds}"
            now = value.item()
            shown[key] = 0.97 * shown.get(key, now) + 0.03 * now
        used = before + time.monotonic() - began
        progress_before, progress.value = progress.value, used / (60 * minutes)
        if progress_before < plan.listening <= progress.value:
            with torch.no_grad():
                network.tune_clock(network.encoder(made.mel.float(), made.places)[0])
        if progress_before < plan.telling <= progress.value:
            only_tell()
        if step % 50 == 0:
            numbers = " ".join(f"{name} {value:.3f}" for name, value in sorted(shown.items()))
            print(
                f"step {step} minute {used / 60:.1f} hours {heard_hours:.1f} "
                f"waited {batches.waited:.0f} s | {numbers}",
                flush=True,
            )
        if time.monotonic() - last_save > 120:
            save()
            last_save = time.monotonic()
    progress.value = 1.0
    save()
    composer.terminate()
    print(f"trained on {heard_hours:.0f} hours of audio in {step} steps")
