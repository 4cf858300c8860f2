"""Models of Whisper's shapes with random weights: their time is real, their text is not.

Every window gets the same fixed text, so that what is measured doesn't depend on what the model
understands: the positional embedding of the decoder says which token comes next, and random
weights as small as these change nothing about it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ctranslate2.specs import whisper_spec
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

Weights = npt.NDArray[np.float16]

TEXT_TOKENS = 90
"""Length of each window's text: what fast speech has in 30 s."""

TIMES = 1501
"""Tokens of time: 0 to 30 s, in steps of 20 ms."""

FRAMES, POSITIONS = 1500, 448
"""What the encoder makes of a window, and what the decoder may say."""

LOUDNESS = 10
"""How much louder a position is than the token that stands there."""

_START = ("<|endoftext|>", "<|startoftranscript|>")
_TASKS = (
    "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>",
    "<|notimestamps|>",
)  # fmt: skip
_POOL = 1 << 24
"""Random numbers from which the matrices of the layers are taken, each from another place on."""


@dataclass(frozen=True)
class Shape:
    """What decides how long a multilingual Whisper takes.

    Attributes:
        width: numbers that stand for one frame or token.
        heads: of attention, in each layer.
        layers: of the encoder, and of the decoder.
        mels: bins of the features.
        tokens: size of the vocabulary.
        languages: how many tokens of it are languages.
    """

    width: int
    heads: int
    layers: int
    mels: int
    tokens: int
    languages: int


SHAPES = {
    "tiny": Shape(384, 6, 4, 80, 51_865, 99),
    "large-v3": Shape(1280, 20, 32, 128, 51_866, 100),
}


def make(folder: Path, shape: Shape) -> Path:
    """Writes a model in float16 into a folder, which it returns.

    It takes less memory than the model: the matrices are views of the same random numbers until
    they are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(shape)
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = tokenizer.get_vocab()
    spec = whisper_spec.WhisperSpec(shape.layers, shape.heads, shape.layers, shape.heads)
    _fill(spec, shape)
    spec.decoder.position_encodings.encodings = _said(spec.decoder.embeddings.weight, ids)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = []
    spec.config.lang_ids = [ids[token] for token in _languages(shape)]
    spec.config.alignment_heads = [[shape.layers - 1, head] for head in range(shape.heads)]
    spec.register_vocabulary([tokenizer.id_to_token(number) for number in range(shape.tokens)])
    spec.validate()
    spec.decoder.projection.weight = "decoder/embeddings/weight"  # one matrix is both
    spec.save(str(folder))
    features = {
        "feature_size": shape.mels, "sampling_rate": 16000, "hop_length": 160, "chunk_length": 30,
        "n_fft": 400,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(features))
    return folder


def _languages(shape: Shape) -> list[str]:
    """English, and names without a meaning for the others."""
    return ["<|en|>", *(f"<|language{number}|>" for number in range(1, shape.languages))]


def _tokenizer(shape: Shape) -> Tokenizer:
    special = [*_START, *_languages(shape), *_TASKS]
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = shape.tokens - len(special) - TIMES - len(pieces) - 1
    # The empty token is what CTranslate2 tells a multilingual Whisper by.
    pieces += [*(f"Ġw{number}" for number in range(words)), ""]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(
        [AddedToken(f"<|{step * 0.02:.2f}|>", special=True) for step in range(TIMES)]
    )
    return tokenizer


def _fill(spec: whisper_spec.WhisperSpec, shape: Shape) -> None:
    random = np.random.default_rng(0)
    pool = (0.01 * random.standard_normal(_POOL, np.float32)).astype(np.float16)

    def matrix(rows: int, columns: int, *more: int) -> Weights:
        size = rows * columns * int(np.prod(more))
        first = random.integers(_POOL - size)
        return pool[first : first + size].reshape(rows, columns, *more)

    def linear(target: Any, rows: int, columns: int, *more: int) -> None:
        target.weight = matrix(rows, columns, *more)
        target.bias = np.zeros(rows, np.float16)

    def norm(target: Any) -> None:
        target.gamma = np.ones(shape.width, np.float16)
        target.beta = np.zeros(shape.width, np.float16)

    width, encoder, decoder = shape.width, spec.encoder, spec.decoder
    linear(encoder.conv1, width, shape.mels, 3)
    linear(encoder.conv2, width, width, 3)
    encoder.position_encodings.encodings = matrix(FRAMES, width)
    embeddings = random.standard_normal((shape.tokens, width), np.float32).astype(np.float16)
    decoder.embeddings.weight = decoder.projection.weight = embeddings
    for side in (encoder, decoder):
        norm(side.layer_norm)
        for layer in side.layer:
            norm(layer.self_attention.layer_norm)
            linear(layer.self_attention.linear[0], 3 * width, width)
            linear(layer.self_attention.linear[1], width, width)
            norm(layer.ffn.layer_norm)
            linear(layer.ffn.linear_0, 4 * width, width)
            linear(layer.ffn.linear_1, width, 4 * width)
    for layer in decoder.layer:
        norm(layer.attention.layer_norm)
        linear(layer.attention.linear[0], width, width)
        linear(layer.attention.linear[1], 2 * width, width)
        linear(layer.attention.linear[2], width, width)


def _said(embeddings: Weights, ids: dict[str, int]) -> Weights:
    """Positions, each of which says the token that comes next: (position, width).

    Where no times are asked for, `<|notimestamps|>` stands in the place of the first time.
    """
    words = (f"Ġw{number}" for number in range(TEXT_TOKENS))
    names = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|0.00|>", *words, "<|30.00|>")
    nexts = [ids[name] for name in (*names, "<|endoftext|>")][1:]
    nexts += [ids["<|endoftext|>"]] * (POSITIONS - len(nexts))
    return np.float16(LOUDNESS) * embeddings[nexts]
