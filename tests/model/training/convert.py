"""Writes a checkpoint as the folder that faster-whisper loads: CTranslate2's Whisper, in int8."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ctranslate2.specs import whisper_spec
from ctranslate2.specs.model_spec import LayerSpec

from . import tokenizer
from .model import ALIGNMENT_HEADS, ENCODER_FRAMES, Decoder, Size
from .vocabulary import WORDS

Weights = dict[str, np.ndarray]

PREPROCESSOR = {
    "feature_size": 80, "sampling_rate": 16000, "hop_length": 160, "chunk_length": 30,
    "n_fft": 400,
}  # fmt: skip


def convert(checkpoint: Path, folder: Path) -> None:
    """Converts the averaged weights of a checkpoint."""
    saved = torch.load(checkpoint, map_location="cpu")
    weights = {name: value.float().numpy() for name, value in saved["average"].items()}
    size = Size(**saved["size"])
    built = tokenizer.build()
    ids = tokenizer.Ids(built)
    spec = whisper_spec.WhisperSpec(
        size.encoder_layers, size.heads, size.decoder_layers, size.heads
    )
    _encoder(spec.encoder, weights)
    _decoder(spec.decoder, weights)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [ids.space]
    spec.config.lang_ids = [built.token_to_id("<|en|>")]
    spec.config.alignment_heads = [list(pair) for pair in ALIGNMENT_HEADS]
    spec.register_vocabulary([built.id_to_token(number) for number in range(ids.size)])
    spec.validate()
    spec.optimize("int8")
    tokenizer.save(built, folder)
    spec.save(str(folder))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")
    (folder / "words.txt").write_text("\n".join(WORDS) + "\n")


def _encoder(spec: Any, weights: Weights) -> None:
    for number in (1, 2):
        _linear(getattr(spec, f"conv{number}"), weights, f"model.encoder.conv{number}")
    spec.position_encodings.encodings = weights["model.encoder.embed_positions.weight"]
    _norm(spec.layer_norm, weights, "model.encoder.layer_norm")
    for number, layer in enumerate(spec.layer):
        name = f"model.encoder.layers.{number}"
        _self_attention(layer.self_attention, weights, name)
        _feed(layer.ffn, weights, name)


def _decoder(spec: Any, weights: Weights) -> None:
    words = weights["model.decoder.embed_tokens.weight"]
    clock = Decoder(Size(width=words.shape[1]), 2 * ENCODER_FRAMES).clock.numpy()
    times = weights["model.decoder.time_gain"] * clock + weights["model.decoder.time_bias"]
    embeddings = np.concatenate([words, times]).astype(np.float32)
    spec.embeddings.weight = embeddings
    spec.projection.weight = embeddings
    spec.position_encodings.encodings = weights["model.decoder.embed_positions.weight"]
    _norm(spec.layer_norm, weights, "model.decoder.layer_norm")
    for number, layer in enumerate(spec.layer):
        name = f"model.decoder.layers.{number}"
        _self_attention(layer.self_attention, weights, name)
        cross = f"{name}.encoder_attn"
        _norm(layer.attention.layer_norm, weights, f"{cross}_layer_norm")
        _linear(layer.attention.linear[0], weights, f"{cross}.q_proj")
        _fused(layer.attention.linear[1], weights, [f"{cross}.k_proj", f"{cross}.v_proj"])
        _linear(layer.attention.linear[2], weights, f"{cross}.out_proj")
        _feed(layer.ffn, weights, name)


def _self_attention(spec: Any, weights: Weights, layer: str) -> None:
    name = f"{layer}.self_attn"
    _norm(spec.layer_norm, weights, f"{name}_layer_norm")
    _fused(spec.linear[0], weights, [f"{name}.{part}_proj" for part in "qkv"])
    _linear(spec.linear[1], weights, f"{name}.out_proj")


def _feed(spec: Any, weights: Weights, layer: str) -> None:
    _norm(spec.layer_norm, weights, f"{layer}.final_layer_norm")
    _linear(spec.linear_0, weights, f"{layer}.fc1")
    _linear(spec.linear_1, weights, f"{layer}.fc2")


def _norm(spec: LayerSpec, weights: Weights, name: str) -> None:
    spec.gamma = weights[f"{name}.weight"]
    spec.beta = weights[f"{name}.bias"]


def _linear(spec: LayerSpec, weights: Weights, name: str) -> None:
    spec.weight = weights[f"{name}.weight"]
    spec.bias = weights[f"{name}.bias"]


def _fused(spec: LayerSpec, weights: Weights, names: list[str]) -> None:
    spec.weight = np.concatenate([weights[f"{name}.weight"] for name in names])
    none = np.zeros(len(spec.weight) // len(names), np.float32)  # Whisper's keys have no bias
    spec.bias = np.concatenate([weights.get(f"{name}.bias", none) for name in names])
