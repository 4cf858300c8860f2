"""The tokenizer: one token for each word, bytes for anything else, Whisper's special tokens."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from .vocabulary import WORDS

SPECIAL = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>",
    "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip


def build() -> Tokenizer:
    """A byte-level tokenizer that faster-whisper reads as an English-only Whisper's."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces += [f"Ġ{word}" for word in WORDS]
    pieces += [f"Ġ{capital}" for word in WORDS if (capital := capitalised(word)) != word]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    times = [AddedToken(f"<|{step * 0.02:.2f}|>", special=True) for step in range(1501)]
    tokenizer.add_tokens(times)
    return tokenizer


def capitalised(word: str) -> str:
    """The word as a sentence begins with it."""
    return word[0].upper() + word[1:]


class Ids:
    """The numbers of the tokens that training needs."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        def number(token: str) -> int:
            found = tokenizer.token_to_id(token)
            assert found is not None, token
            return found

        self.size = tokenizer.get_vocab_size()
        self.end = number("<|endoftext|>")
        self.start = number("<|startoftranscript|>")
        self.previous = number("<|startofprev|>")
        self.no_speech = number("<|nospeech|>")
        self.no_timestamps = number("<|notimestamps|>")
        self.time_zero = number("<|0.00|>")
        self.space = number("Ġ")
        self.comma = number(",")
        self.stop = number(".")
        self.word = {}
        self.class_of = {}
        for index, word in enumerate(WORDS):
            for form in (word, capitalised(word)):
                self.word[form] = number(f"Ġ{form}")
                self.class_of[number(f"Ġ{form}")] = index
        self.classes = len(WORDS)


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
