"""A model of Whisper tiny's shape with random weights: its time is real, its text is not.

Every window gets the same fixed text, so that what is measured doesn't depend on what a small
model understands: the positional embedding of the decoder says which token comes next, and random
weights as small as these change nothing about it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from ctranslate2.specs import whisper_spec
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

WIDTH, HEADS, LAYERS = 384, 6, 4
TOKENS = 51_864
"""Vocabulary of tiny.en."""
TEXT_TOKENS = 90
"""Length of each window's text: what fast speech has in 30 s."""
SPECIAL = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>",
    "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip
TIMES = 1501


def make(folder: Path) -> Path:
    """Writes the model, if it is not there yet; returns its folder."""
    if (folder / "model.bin").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    spec = whisper_spec.WhisperSpec(LAYERS, HEADS, LAYERS, HEADS)
    random = np.random.default_rng(0)
    _fill(spec, random)
    ids = tokenizer.get_vocab()
    end, start, zero = (ids[f"<|{name}|>"] for name in ("endoftext", "startoftranscript", "0.00"))
    words = [ids[f"Ġw{number}"] for number in range(TEXT_TOKENS)]
    spec.decoder.position_encodings.encodings = _said(
        spec.decoder.embeddings.weight, [start, zero, *words, zero + TIMES - 1, end]
    )
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = []
    spec.config.lang_ids = [ids["<|en|>"]]
    spec.config.alignment_heads = [[LAYERS - 1, 0]]
    spec.register_vocabulary([tokenizer.id_to_token(number) for number in range(TOKENS)])
    spec.validate()
    spec.optimize("int8")
    spec.save(str(folder))
    features = {
        "feature_size": 80, "sampling_rate": 16000, "hop_length": 160, "chunk_length": 30,
        "n_fft": 400,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(features))
    return folder


def _tokenizer() -> Tokenizer:
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces += [f"Ġw{n}" for n in range(TOKENS - len(pieces) - len(SPECIAL) - TIMES)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens(
        [AddedToken(f"<|{step * 0.02:.2f}|>", special=True) for step in range(TIMES)]
    )
    return tokenizer


def _fill(spec: whisper_spec.WhisperSpec, random: np.random.Generator) -> None:
    def matrix(rows: int, columns: int, *more: int) -> np.ndarray:
        return random.normal(0, 0.01, (rows, columns, *more)).astype(np.float32)

    def linear(target: object, rows: int, columns: int, *more: int) -> None:
        target.weight = matrix(rows, columns, *more)  # type: ignore[attr-defined]
        target.bias = np.zeros(rows, np.float32)  # type: ignore[attr-defined]

    def norm(target: object) -> None:
        target.gamma = np.ones(WIDTH, np.float32)  # type: ignore[attr-defined]
        target.beta = np.zeros(WIDTH, np.float32)  # type: ignore[attr-defined]

    encoder, decoder = spec.encoder, spec.decoder
    linear(encoder.conv1, WIDTH, 80, 3)
    linear(encoder.conv2, WIDTH, WIDTH, 3)
    encoder.position_encodings.encodings = matrix(1500, WIDTH)
    embeddings = random.normal(0, 1, (TOKENS, WIDTH)).astype(np.float32)
    decoder.embeddings.weight = decoder.projection.weight = embeddings
    for side in (encoder, decoder):
        norm(side.layer_norm)
        for layer in side.layer:
            norm(layer.self_attention.layer_norm)
            linear(layer.self_attention.linear[0], 3 * WIDTH, WIDTH)
            linear(layer.self_attention.linear[1], WIDTH, WIDTH)
            norm(layer.ffn.layer_norm)
            linear(layer.ffn.linear_0, 4 * WIDTH, WIDTH)
            linear(layer.ffn.linear_1, WIDTH, 4 * WIDTH)
    for layer in decoder.layer:
        norm(layer.attention.layer_norm)
        linear(layer.attention.linear[0], WIDTH, WIDTH)
        linear(layer.attention.linear[1], 2 * WIDTH, WIDTH)
        linear(layer.attention.linear[2], WIDTH, WIDTH)


def _said(embeddings: np.ndarray, tokens: list[int]) -> np.ndarray:
    """Positions that are louder than the token that stands there, and say which one comes next."""
    nexts = [*tokens[1:], *[tokens[-1]] * (448 - len(tokens) + 1)]
    return 10 * embeddings[nexts[:448]]
