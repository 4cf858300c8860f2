"""Whisper's architecture, small, written so that training can see and teach its attention.

Parameters carry the names of Hugging Face's Whisper, so that converting is only loading. What is
not Whisper's (the heads that name the phoneme and the word of each frame) is dropped then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ENCODER_FRAMES = 1500
"""Encoder frames of a 30 s window."""
TEXT_POSITIONS = 448
"""Tokens of a prompt and a transcript together."""

PREVIOUS_WORD_HEADS = ((0, 0),)
"""Decoder (layer, head) taught to look at the word that was said last."""
ALIGNMENT_HEADS = ((1, 0), (1, 1), (2, 0))
"""Decoder (layer, head) taught to look at the word that comes next: word times come from these."""


CLOCK_HEADS = {(0, 0): 0.7, (2, 0): 1.5}
"""Decoder (layer, head): strength with which its values begin as the clock of the frame seen."""
FOLLOWING_HEADS = {(1, 0): 10, (1, 1): 14, (2, 0): 4}
"""Decoder (layer, head): how many frames after the clock in the stream it looks at first."""
CLOCK_RATES = range(0, 72, 3)
"""The sinusoids of the embedding of time that fit into one head: periods of 6 to 5,000 frames."""
HALF = 96
"""Sines are in the channels below, cosines in those from here on."""
HEAD_SIZE = 48
CLOCK_CHANNELS = [half + channel for half in (0, HALF) for channel in CLOCK_RATES]
"""The channels of frames that nothing but the embedding of time is written to: see keep_clock."""

PLACE_CHANNELS = [*range(80, 88), *range(176, 184)]
"""The decoder's channels that carry where a token stands, as sinusoids."""
PLACE_PERIODS = [12 * 1.8**n for n in range(8)]
"""Their periods, in tokens: their inner product falls over the first twelve tokens of distance."""
TIME_CHANNEL = 88
"""The decoder's channel that says whether a token is a time."""
ANCHOR_RATES = (45, 51, 60, 66)
"""Channels of the clock, with periods of 10 to 75 s, that say where the sentence began."""
ANCHOR_CHANNELS = [*range(89, 93), *range(184, 188)]
"""The decoder's channels to which they are copied from the latest time token."""
GROUND_CHANNELS = [93, 94, 188, 189]
"""The decoder's channels that take the mean off the others, so that layer norms leave it alone."""
RESERVED_CHANNELS = [*PLACE_CHANNELS, TIME_CHANNEL, *ANCHOR_CHANNELS, *GROUND_CHANNELS]
"""Nothing else is written to these."""

LOOK_BACK = {(0, 0): 1, (0, 1): 2}
"""Decoder (layer, head) of self-attention: how many tokens back it looks at first."""
OWN_CLOCK_HEAD = (0, 2)
"""The one that begins by copying a time token's clock to where words have that of their frame."""
ANCHOR_HEAD = (0, 3)
"""The one that begins by copying the latest time token's slow clock."""
ANCHOR_FRAMES = 75
"""How many frames after the sentence's begin a word is looked for first."""
AROUND_HEADS = ((1, 3), (2, 3))
"""Those that begin by copying the slow clock of the last few tokens."""
AROUND_RATES = range(36, 72, 3)

TIME_SCALE = 0.03
CLOCK_SCALE = 0.5
"""A time token is the embedding of the encoder frame that it names, this much smaller, in the
clock's channels and in the others."""
PLACE_SCALE = 20.0
TIME_FLAG = 6.0
"""Loud enough to be heard beside what the layers will write."""
WORD_SCALE = 0.05
CLOSING_SCALE = 4.0
"""How much louder than usual the layers write at first, for the same reason."""
LOUDNESS = (4.0, 8.0, 8.0)
"""What the layer norm before each layer's self-attention is expected to divide by."""
OWN_CLOCK_STRENGTH, ANCHOR_STRENGTH, AROUND_STRENGTH = 8.0, 3.0, 3.0

START, NO_TIMES = -8, -1
"""Rows of <|startoftranscript|> and <|notimestamps|> among the tokens that are no times."""


@dataclass(frozen=True)
class Size:
    """The dimensions of the network."""

    width: int = 192
    heads: int = 4
    encoder_layers: int = 4
    decoder_layers: int = 3


class Attention(nn.Module):
    """Whisper's attention: no bias on the keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, memory: Tensor, causal: bool = False) -> Tensor:
        """Fast attention, when nobody asks for its weights."""
        out = F.scaled_dot_product_attention(
            self._split(self.q_proj(x)),
            self._split(self.k_proj(memory)),
            self._split(self.v_proj(memory)),
            is_causal=causal,
        )
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def weighed(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Attention and its weights, (batch, head, query, key)."""
        query, key = self._split(self.q_proj(x)), self._split(self.k_proj(memory))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        weights = scores.float().softmax(-1)
        out = weights.to(x.dtype) @ self._split(self.v_proj(memory))
        return self.out_proj(out.transpose(1, 2).flatten(2)), weights


class Feed(nn.Module):
    """What encoder and decoder layers share."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def feed(self, x: Tensor) -> Tensor:
        """The feed-forward half of a layer."""
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class EncoderLayer(Feed):
    """One layer over all frames."""

    def __init__(self, size: Size) -> None:
        super().__init__(size.width)
        self.self_attn = Attention(size.width, size.heads)
        self.self_attn_layer_norm = nn.LayerNorm(size.width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frame, width) to the same."""
        normed = self.self_attn_layer_norm(x)
        return self.feed(x + self.self_attn(normed, normed))


class DecoderLayer(Feed):
    """One layer over all tokens."""

    def __init__(self, size: Size) -> None:
        super().__init__(size.width)
        self.self_attn = Attention(size.width, size.heads)
        self.self_attn_layer_norm = nn.LayerNorm(size.width)
        self.encoder_attn = Attention(size.width, size.heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(size.width)

    def forward(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, token, width) to the same, and the weights over the frames."""
        normed = self.self_attn_layer_norm(x)
        x = x + self.self_attn(normed, normed, causal=True)
        heard, weights = self.encoder_attn.weighed(self.encoder_attn_layer_norm(x), memory)
        return self.feed(x + heard), weights


class Encoder(nn.Module):
    """Two convolutions and the layers."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(80, size.width, 3, padding=1)
        self.conv2 = nn.Conv1d(size.width, size.width, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(ENCODER_FRAMES, size.width)
        self.layers = nn.ModuleList(EncoderLayer(size) for _ in range(size.encoder_layers))
        self.layer_norm = nn.LayerNorm(size.width)
        self.embed_positions.weight.data = sinusoids(ENCODER_FRAMES, size.width)
        self.embed_positions.weight.requires_grad_(False)

    def forward(self, mel: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Frames after the last layer, and after the middle one, where phonemes are taught.

        `places` says where in the 30 s each short training window lies, in frames.
        """
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        frames = places[:, None] + torch.arange(x.shape[1])
        x = x + self.embed_positions(frames)
        middle = x
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number + 1 == len(self.layers) // 2:
                middle = x
        return self.layer_norm(x), middle

    @torch.no_grad()
    def keep_clock(self) -> None:
        """Takes back what training would write to the clock's channels.

        So each frame knows its place to the frame, after any number of layers: heads that look a
        distance away, and time tokens, need that more than the room.
        """
        for layer in (self.conv2, *(m for x in self.layers for m in (x.self_attn.out_proj, x.fc2))):
            layer.weight[CLOCK_CHANNELS] = 0
            layer.bias[CLOCK_CHANNELS] = 0


class Decoder(nn.Module):
    """Tokens to states, looking at the frames."""

    def __init__(self, size: Size, tokens: int) -> None:
        super().__init__()
        times = ENCODER_FRAMES + 1  # the time tokens are the last ones
        self.embed_tokens = nn.Embedding(tokens - times, size.width)
        self.time_gain = nn.Parameter(torch.ones(1))
        self.time_bias = nn.Parameter(torch.zeros(size.width))
        scale = torch.full((size.width,), TIME_SCALE)
        scale[CLOCK_CHANNELS] = CLOCK_SCALE
        scale[RESERVED_CHANNELS] = 0
        clock = scale * sinusoids(times, size.width)
        clock[:, GROUND_CHANNELS] = -clock.sum(1, keepdim=True) / len(GROUND_CHANNELS)
        self.register_buffer("clock", clock, persistent=False)
        self.embed_positions = nn.Embedding(TEXT_POSITIONS, size.width)
        self.embed_positions.weight.data = places(TEXT_POSITIONS, size.width)
        self.embed_positions.weight.requires_grad_(False)
        self.layers = nn.ModuleList(DecoderLayer(size) for _ in range(size.decoder_layers))
        self.layer_norm = nn.LayerNorm(size.width)

    @torch.no_grad()
    def keep_places(self) -> None:
        """Takes back what training would write to the reserved channels, and to words' clocks.

        What else is written has a mean of zero, so that the layer norms leave these as they are.
        """
        free = [c for c in range(self.time_bias.shape[0]) if c not in RESERVED_CHANNELS]
        words = self.embed_tokens.weight
        words[:, free] -= words[:, free].mean(1, keepdim=True)
        words[:, [*CLOCK_CHANNELS, *RESERVED_CHANNELS]] = 0
        flag = torch.zeros(self.time_bias.shape[0])
        flag[TIME_CHANNEL] = TIME_FLAG
        flag[GROUND_CHANNELS] = -TIME_FLAG / len(GROUND_CHANNELS)
        kept = [*CLOCK_CHANNELS, *RESERVED_CHANNELS]
        # A transcript begins as if 0 s had been said, one without times as if no time had been.
        words[START, kept] = (self.time_gain * self.clock[0] + flag)[kept]
        words[NO_TIMES, kept] = flag[kept]
        self.time_bias[free] -= self.time_bias[free].mean()
        self.time_bias[RESERVED_CHANNELS] = flag[RESERVED_CHANNELS]
        for number, layer in enumerate(self.layers):
            for part in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
                part.weight[free] -= part.weight[free].mean(0)
                part.bias[free] -= part.bias[free].mean()
                first = number == 0 and part is layer.self_attn.out_proj
                written = ANCHOR_CHANNELS if first else []
                closed = [c for c in RESERVED_CHANNELS if c not in written]
                part.weight[closed] = 0
                part.bias[closed] = 0

    def embeddings(self) -> Tensor:
        """One row a token. Of those of times only what they have in common is learnt.

        As free rows each would have to be met in training; as a learnt map of the clock they lose
        its fast channels, and with them all exactness, to the question whether a time comes next.
        """
        times = self.time_gain * self.clock + self.time_bias
        return torch.cat([self.embed_tokens.weight, times])

    def forward(self, tokens: Tensor, memory: Tensor) -> tuple[Tensor, list[Tensor]]:
        """States for each token, and each layer's weights over the frames."""
        x = F.embedding(tokens, self.embeddings()) + self.embed_positions.weight[: tokens.shape[1]]
        seen = []
        for layer in self.layers:
            x, weights = layer(x, memory)
            seen.append(weights)
        return self.layer_norm(x), seen


class Whisper(nn.Module):
    """The network and the three heads that only training needs."""

    def __init__(self, size: Size, tokens: int, words: int, phonemes: int) -> None:
        super().__init__()
        self.size = size
        self.model = nn.ModuleDict({"encoder": Encoder(size), "decoder": Decoder(size, tokens)})
        self.phoneme_of_frame = nn.Linear(size.width, phonemes)
        self.word_of_frame = nn.Linear(size.width, words)
        self.word_before_frame = nn.Linear(size.width, words)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "embed_tokens" in name:
                nn.init.normal_(parameter, std=WORD_SCALE)
            elif parameter.dim() == 2 and "embed_positions" not in name:
                nn.init.xavier_uniform_(parameter)
        for layer in self.encoder.layers:
            for closing in (layer.self_attn.out_proj, layer.fc2):
                closing.weight.data *= 0.5
        look_around(self.encoder)
        self.encoder.keep_clock()
        follow(self.decoder)
        look_back(self.decoder)
        self.decoder.keep_places()

    @torch.no_grad()
    def tune_clock(self, memory: Tensor) -> None:
        """Makes the clock in the encoder's frames as loud as it began.

        While the encoder learns, what it writes grows more than tenfold, and the layer norm at its
        end turns all channels down alike. What reads frames already is made up for it.
        """
        loudness = memory[..., CLOCK_CHANNELS].pow(2).mean().sqrt()
        self.encoder.layer_norm.weight[CLOCK_CHANNELS] /= loudness
        self.encoder.layer_norm.bias[CLOCK_CHANNELS] /= loudness
        for head in (self.word_of_frame, self.word_before_frame):
            head.weight[:, CLOCK_CHANNELS] *= loudness

    @property
    def encoder(self) -> Encoder:
        """Audio to frames."""
        return self.model["encoder"]  # type: ignore[return-value]

    @property
    def decoder(self) -> Decoder:
        """Frames and tokens to tokens."""
        return self.model["decoder"]  # type: ignore[return-value]

    def logits(self, states: Tensor) -> Tensor:
        """Scores of the next token."""
        return F.linear(states, self.decoder.embeddings())


def sinusoids(length: int, channels: int) -> Tensor:
    """Whisper's fixed embedding of time."""
    angle = torch.arange(length)[:, None] * sinusoid_rates(channels)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def sinusoid_rates(channels: int) -> Tensor:
    """How far each sinusoid of the embedding of time turns in a frame, in radians."""
    return torch.exp(-math.log(10000) / (channels // 2 - 1) * torch.arange(channels // 2))


def places(length: int, channels: int) -> Tensor:
    """The decoder's embedding of positions: behind a long prompt all is as behind a short one."""
    angle = torch.arange(length)[:, None] * (2 * math.pi / torch.tensor(PLACE_PERIODS))
    place = PLACE_SCALE * torch.cat([angle.sin(), angle.cos()], dim=1)
    table = torch.zeros(length, channels)
    table[:, PLACE_CHANNELS] = place
    table[:, GROUND_CHANNELS] = -place.sum(1, keepdim=True) / len(GROUND_CHANNELS)
    return table


LOOK_AT = ((-4, -1, 1, 4), (-9, -3, 3, 9), (-18, -6, 6, 18), (-36, -12, 0, 12))
"""Where each encoder head looks at first, in frames from its own: a convolution to begin with."""


def look_around(encoder: Encoder) -> None:
    """Each head of the encoder begins by looking a fixed distance away.

    From such a start the network learns in minutes what it does not find in an hour from a
    random one.
    """
    for layer, distances in zip(encoder.layers, LOOK_AT, strict=True):
        attention = layer.self_attn
        attention.q_proj.weight.data *= 0.1
        attention.k_proj.weight.data *= 0.1
        for head, distance in enumerate(distances):
            aim(attention, head, distance)


def follow(decoder: Decoder) -> None:
    """The decoder begins with a clock: heads that carry it, heads that look a little after it."""
    width = decoder.time_bias.shape[0]
    for (layer, head), strength in CLOCK_HEADS.items():
        attention = decoder.layers[layer].encoder_attn
        rows = slice(head * len(CLOCK_CHANNELS), (head + 1) * len(CLOCK_CHANNELS))
        clock = torch.eye(width)[CLOCK_CHANNELS]
        # What is common to all channels is what the layer norm took away, not the clock.
        attention.v_proj.weight.data[rows] = clock - clock.mean(0)
        attention.out_proj.weight.data[:, rows] = strength * clock.T
    for (layer, head), distance in FOLLOWING_HEADS.items():
        aim(decoder.layers[layer].encoder_attn, head, distance)


def aim(attention: Attention, head: int, distance: float) -> None:
    """A head begins by looking a distance (in frames) away from the clock in its query.

    The inner product of two sinusoidal embeddings depends on their distance only, so turning the
    query's by a distance makes a head look there.
    """
    rates = sinusoid_rates(2 * HALF)
    pairs = len(CLOCK_RATES)
    for pair, rate in enumerate(CLOCK_RATES):
        sin = HEAD_SIZE * head + pair
        channels = (rate, rate + HALF)
        rotate(attention, sin, sin + pairs, float(rates[rate]) * distance, 1.1, channels, channels)


@torch.no_grad()
def look_back(decoder: Decoder) -> None:
    """The decoder begins with its place: where the sentence began and where the last words were.

    A word that comes twice in a window is the one near those.
    """
    for number, layer in enumerate(decoder.layers):
        for reader in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj,
                       layer.encoder_attn.q_proj, layer.fc1):  # fmt: skip
            reader.weight[:, RESERVED_CHANNELS] = 0
        for closing in (layer.self_attn.out_proj, layer.encoder_attn.out_proj):
            closing.weight *= CLOSING_SCALE
        layer.fc2.weight *= CLOSING_SCALE
        norm = layer.self_attn_layer_norm.weight
        if number == 0:
            norm[:] = LOUDNESS[0] / WORD_SCALE
            norm[CLOCK_CHANNELS] = LOUDNESS[0] / CLOCK_SCALE
            norm[RESERVED_CHANNELS] = 1
        norm[GROUND_CHANNELS] = 0
        norm[PLACE_CHANNELS] = LOUDNESS[number] / PLACE_SCALE
    decoder.layer_norm.weight[RESERVED_CHANNELS] = 0
    for (layer, head), distance in LOOK_BACK.items():
        at_place(decoder.layers[layer].self_attn, head, distance, (16.0, 1.0))
    own_clock(decoder)
    anchor(decoder)
    slow = [*AROUND_RATES, *(rate + HALF for rate in AROUND_RATES)]
    for layer, head in AROUND_HEADS:
        attention = decoder.layers[layer].self_attn
        at_place(attention, head, 0, (0.7, 0.7))
        copy(attention, head, slow, slow, AROUND_STRENGTH)


def own_clock(decoder: Decoder) -> None:
    """Time tokens begin with the clock where words will have that of their frame."""
    layer, head = OWN_CLOCK_HEAD
    attention = decoder.layers[layer].self_attn
    at_place(attention, head, 0, (60.0, 1.0))
    copy(attention, head, CLOCK_CHANNELS, CLOCK_CHANNELS, OWN_CLOCK_STRENGTH)


def anchor(decoder: Decoder) -> None:
    """Words begin to be looked for a little after the latest time token."""
    layer, head = ANCHOR_HEAD
    attention = decoder.layers[layer].self_attn
    at_place(attention, head, 0, (3.0, 3.0))
    flag = HEAD_SIZE * head + len(PLACE_CHANNELS)
    clear(attention, flag, 1)
    attention.k_proj.weight[flag, TIME_CHANNEL] = LOUDNESS[0] / TIME_FLAG
    attention.q_proj.bias[flag] = 36 * math.sqrt(HEAD_SIZE)
    clocks = [*ANCHOR_RATES, *(rate + HALF for rate in ANCHOR_RATES)]
    copy(attention, head, clocks, ANCHOR_CHANNELS, ANCHOR_STRENGTH)
    (layer, head), *_ = PREVIOUS_WORD_HEADS
    attention = decoder.layers[layer].encoder_attn
    rates = sinusoid_rates(2 * HALF)
    strong = math.sqrt(2 * math.sqrt(HEAD_SIZE))
    clear(attention, HEAD_SIZE * head, 2 * len(ANCHOR_RATES))
    for number, rate in enumerate(ANCHOR_RATES):
        turn = float(rates[rate]) * ANCHOR_FRAMES
        sin = HEAD_SIZE * head + number
        rotate(attention, sin, sin + len(ANCHOR_RATES), turn, strong,
               (ANCHOR_CHANNELS[number], ANCHOR_CHANNELS[number + len(ANCHOR_RATES)]),
               (rate, rate + HALF))  # fmt: skip


def at_place(attention: Attention, head: int, distance: int, sharp: tuple[float, float]) -> None:
    """A head begins by looking a number of tokens back.

    sharp: the logits that the two fastest sinusoids of the place give, and each of the others.
    """
    pairs = len(PLACE_PERIODS)
    clear(attention, HEAD_SIZE * head, 2 * pairs)
    for pair, period in enumerate(PLACE_PERIODS):
        strong = math.sqrt(sharp[pair >= 2] * math.sqrt(HEAD_SIZE))
        channels = (PLACE_CHANNELS[pair], PLACE_CHANNELS[pairs + pair])
        sin = HEAD_SIZE * head + pair
        turn = -2 * math.pi * distance / period
        rotate(attention, sin, sin + pairs, turn, strong, channels, channels)


def rotate(
    attention: Attention,
    sin: int,
    cos: int,
    turn: float,
    strong: float,
    query: tuple[int, int],
    key: tuple[int, int],
) -> None:
    """Two rows of a head compare, too, a sinusoid in the query, turned on, with that in the key.

    query, key: channels of its sine and its cosine.
    """
    attention.k_proj.weight.data[sin, key[0]] += strong
    attention.k_proj.weight.data[cos, key[1]] += strong
    attention.q_proj.weight.data[sin, query[0]] += strong * math.cos(turn)
    attention.q_proj.weight.data[sin, query[1]] += strong * math.sin(turn)
    attention.q_proj.weight.data[cos, query[1]] += strong * math.cos(turn)
    attention.q_proj.weight.data[cos, query[0]] -= strong * math.sin(turn)


def clear(attention: Attention, first: int, rows: int) -> None:
    """These rows of the queries and keys compare nothing."""
    for part in (attention.q_proj, attention.k_proj):
        part.weight.data[first : first + rows] = 0


def copy(
    attention: Attention,
    head: int,
    sources: Sequence[int],
    targets: Sequence[int],
    strength: float,
) -> None:
    """A head begins by writing channels of what it sees to other channels, and nothing else."""
    rows = slice(HEAD_SIZE * head, HEAD_SIZE * (head + 1))
    attention.out_proj.weight[:, rows] = 0
    for row, (source, target) in enumerate(
        zip(sources, targets, strict=True), start=HEAD_SIZE * head
    ):
        attention.v_proj.weight[row] = 0
        attention.v_proj.weight[row, source] = 1
        attention.out_proj.weight[target, row] = strength
