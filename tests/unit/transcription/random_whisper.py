"""A Whisper of random weights: it says nothing sensible, but it has every part of a real one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from ctranslate2.specs.whisper_spec import WhisperSpec
from faster_whisper.tokenizer import _LANGUAGE_CODES
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

WIDTH, HEADS, LAYERS, WORDS = 32, 2, 1, 50

LANGUAGES = tuple(_LANGUAGE_CODES[:99])
"""The languages of Whisper up to large-v2."""


def save_multilingual(folder: Path) -> None:
    """Writes a multilingual model that says a few words in each window."""
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": 80}))
    spec = WhisperSpec(LAYERS, HEADS, LAYERS, HEADS)
    _fill(spec, tokenizer)
    size = tokenizer.get_vocab_size()
    spec.register_vocabulary([tokenizer.id_to_token(number) for number in range(size)])
    spec.validate()
    spec.save(str(folder))


def _tokenizer() -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    # The empty token is what CTranslate2 tells a multilingual Whisper by.
    pieces = [*letters, *(f"Ġword{number}" for number in range(WORDS)), ""]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["endoftext", "startoftranscript", *LANGUAGES, "translate", "transcribe"]
    special += ["startoflm", "startofprev", "nospeech", "notimestamps"]
    tokenizer.add_special_tokens([f"<|{name}|>" for name in special])
    times = [AddedToken(f"<|{step * 0.02:.2f}|>", special=True) for step in range(1501)]
    tokenizer.add_tokens(times)
    return tokenizer


def _fill(spec: WhisperSpec, tokenizer: Tokenizer) -> None:
    random = np.random.default_rng(5)

    def weights(*shape: int) -> np.ndarray:
        return random.normal(0, 0.1, shape).astype(np.float32)

    def linear(layer: object, out: int, into: int = WIDTH) -> None:
        layer.weight, layer.bias = weights(out, into), weights(out)  # type: ignore[attr-defined]

    def norm(layer: object) -> None:
        layer.gamma, layer.beta = np.ones(WIDTH, np.float32), weights(WIDTH)  # type: ignore[attr-defined]

    def block(layer: object) -> None:
        norm(layer.self_attention.layer_norm)  # type: ignore[attr-defined]
        linear(layer.self_attention.linear[0], 3 * WIDTH)  # type: ignore[attr-defined]
        linear(layer.self_attention.linear[1], WIDTH)  # type: ignore[attr-defined]
        norm(layer.ffn.layer_norm)  # type: ignore[attr-defined]
        linear(layer.ffn.linear_0, 4 * WIDTH)  # type: ignore[attr-defined]
        linear(layer.ffn.linear_1, WIDTH, 4 * WIDTH)  # type: ignore[attr-defined]

    encoder, decoder = spec.encoder, spec.decoder
    encoder.conv1.weight, encoder.conv1.bias = weights(WIDTH, 80, 3), weights(WIDTH)
    encoder.conv2.weight, encoder.conv2.bias = weights(WIDTH, WIDTH, 3), weights(WIDTH)
    encoder.position_encodings.encodings = weights(1500, WIDTH)
    norm(encoder.layer_norm)
    for layer in encoder.layer:
        block(layer)
    decoder.embeddings.weight = weights(tokenizer.get_vocab_size(), WIDTH)
    decoder.position_encodings.encodings = weights(448, WIDTH)
    norm(decoder.layer_norm)
    decoder.projection.weight = decoder.embeddings.weight.copy()
    decoder.projection.bias = np.zeros(tokenizer.get_vocab_size(), np.float32)
    for number in range(WORDS):
        decoder.projection.bias[tokenizer.token_to_id(f"Ġword{number}")] = 10
    decoder.projection.bias[tokenizer.token_to_id("<|endoftext|>")] = 10.8
    for layer in decoder.layer:
        block(layer)
        norm(layer.attention.layer_norm)
        linear(layer.attention.linear[0], WIDTH)
        linear(layer.attention.linear[1], 2 * WIDTH)
        linear(layer.attention.linear[2], WIDTH)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [tokenizer.token_to_id("<|endoftext|>")]
    spec.config.lang_ids = [tokenizer.token_to_id(f"<|{code}|>") for code in LANGUAGES]
    spec.config.alignment_heads = [[0, 0]]
