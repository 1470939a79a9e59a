"""A prompt and a tree of tokens behind it in one pass: every node sees the prompt, its own line, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fivefold.models.backbones.architectures import is_steered
from fivefold.models.backbones.passes import Passes
from fivefold.models.backbones.passes import Sequences as Padded
from fivefold.models.backbones.prefix import Prefix
from fivefold.models.generator.answers import Answers, Positions


@dataclass(frozen=True)
class Nodes:
    """Nodes that each row of a batch reads behind its prompt.

    Parameters
    ----------
    tokens, depths
        int64 (B, n): ids, and how many nodes stand before each; a place without a node has the depth -1.
    lines
        int64 (B, n, deepest + 1): positions among the n of the nodes that lead to each, itself last, -1 behind them.
    """

    tokens: Tensor
    depths: Tensor
    lines: Tensor

    @property
    def seen(self) -> Tensor:
        """Which nodes each one sees: bool (B, n, n), by row and column."""
        rows, count, _ = self.lines.shape
        marks = torch.zeros(rows, count, count + 1, dtype=torch.bool, device=self.lines.device)
        marks.scatter_(2, torch.where(self.lines < 0, count, self.lines), True)
        return marks[:, :, :count]

    def repeated(self, rows: int) -> Nodes:
        """Those of the only row, for each of so many."""
        return Nodes(*(each.expand(rows, *each.shape[1:]) for each in (self.tokens, self.depths, self.lines)))


def nodes_of(answers: Answers, reads: Sequence[Positions]) -> Nodes:
    """What each row reads, nodes and all before them, as a batch."""
    count = max(map(len, reads))
    tokens = np.zeros((len(reads), count), dtype=np.int64)
    depths = np.full((len(reads), count), -1, dtype=np.int64)
    deepest = max((int(answers.depths[read].max(initial=0)) for read in reads), default=0)
    lines = np.full((len(reads), count, deepest + 1), -1, dtype=np.int64)
    for row, read in enumerate(reads):
        tokens[row, : len(read)], depths[row, : len(read)] = answers.tokens[read], answers.depths[read]
        own = answers.lines[read, : deepest + 1]
        lines[row, : len(read)] = np.where(own < 0, -1, np.searchsorted(read, own))
    return Nodes(*(torch.from_numpy(each) for each in (tokens, depths, lines)))


def chains(sequences: Sequence[Sequence[int]]) -> Nodes:
    """Tokens of which each follows the one before it, one sequence a row."""
    count = max(map(len, sequences), default=0)
    tokens = np.zeros((len(sequences), count), dtype=np.int64)
    depths = np.full((len(sequences), count), -1, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)], depths[row, : len(sequence)] = sequence, np.arange(len(sequence))
    places = np.arange(count)
    lines = np.where((depths[:, :, None] >= 0) & (places[None, None] <= places[None, :, None]), places, -1)
    return Nodes(*(torch.from_numpy(each) for each in (tokens, depths, lines)))


def hidden_at(backbone: Any, passes: Passes, prompts: Padded, nodes: Nodes, known: Prefix | None = None) -> Tensor:
    """The vectors of each prompt's last token and of the nodes behind it: (B, 1 + n, H).

    `known` is what a backbone that reads trees made of the tokens that all prompts begin with, and go on from.
    """
    if is_steered(backbone):
        return _at_once(backbone, prompts, nodes, known)
    return _apart(backbone, passes, prompts, nodes)


def _at_once(backbone: Any, prompts: Padded, nodes: Nodes, known: Prefix | None) -> Tensor:
    past, done = (None, 0) if known is None else (known.past, known.hidden.shape[1])
    lengths = prompts.mask.sum(dim=1)
    width = int(lengths.max())
    ids = torch.cat([prompts.ids[:, :width], nodes.tokens], dim=1)
    front = torch.arange(width, device=ids.device).expand(len(ids), -1)
    positions = torch.cat([front, lengths[:, None] + nodes.depths.clamp(min=0)], dim=1)
    mask = _mask(front < lengths[:, None], nodes)
    hidden = backbone(
        input_ids=ids[:, done:],
        attention_mask=_layered(backbone, mask, positions, done),
        position_ids=positions[:, done:],
        past_key_values=past,
    )
    wanted = torch.cat([lengths[:, None] - 1, width + _count(nodes).expand(len(ids), -1)], dim=1) - done
    found: Tensor = hidden.last_hidden_state
    return found.gather(1, wanted[..., None].expand(-1, -1, found.shape[2]))


def _mask(real: Tensor, nodes: Nodes) -> Tensor:
    """What sees what, bool (B, P + n, P + n); everything sees itself, so that no softmax is over nothing."""
    rows, width = real.shape
    total = width + nodes.tokens.shape[1]
    mask = torch.zeros(rows, total, total, dtype=torch.bool, device=real.device)
    mask[:, :width, :width] = torch.ones(width, width, dtype=torch.bool, device=real.device).tril()
    mask[:, width:, :width] = real[:, None, :]
    mask[:, width:, width:] = nodes.seen
    mask |= torch.eye(total, dtype=torch.bool, device=real.device)
    return mask


def _layered(backbone: Any, mask: Tensor, positions: Tensor, done: int) -> Any:
    """The mask as each kind of layer takes it, of what comes after so many tokens; those with a window see no further
    back."""
    config = backbone.config
    reach = getattr(config, "sliding_window", None)
    near = mask if reach is None else mask & (positions[:, :, None] - positions[:, None, :] < reach)
    layers = getattr(config, "layer_types", None)
    if layers is None:
        return as_taken(config, near[:, done:])
    kinds = {"full_attention": mask[:, done:], "sliding_attention": near[:, done:]}
    return {kind: as_taken(config, kinds[kind]) for kind in set(layers)}


def as_taken(config: Any, mask: Tensor) -> Tensor:
    """Fused attention takes what is true, plain attention adds a large negative number elsewhere; (B, 1, T, T)."""
    if config._attn_implementation != "eager":
        return mask[:, None]
    return torch.where(mask, 0.0, torch.finfo(torch.float32).min)[:, None]


def _apart(backbone: Any, passes: Passes, prompts: Padded, nodes: Nodes) -> Tensor:
    """Each line of nodes behind its own copy of the prompt, as any causal backbone reads it."""
    lengths = prompts.mask.sum(dim=1).tolist()
    sequences: list[Tensor] = []
    places: list[tuple[int, int, int, int]] = []
    for row, length in enumerate(lengths):
        prompt, lines = prompts.ids[row, :length], [line[line >= 0] for line in nodes.lines[row]]
        followed = {int(place) for line in lines for place in line[:-1]}
        places.append((row, 0, len(sequences), length - 1))
        sequences.append(prompt)
        for line in (each for each in lines if len(each) and int(each[-1]) not in followed):
            places += [(row, 1 + int(node), len(sequences), length + at) for at, node in enumerate(line)]
            sequences.append(torch.cat([prompt, nodes.tokens[row, line]]))
    ids = pad_sequence(sequences, batch_first=True)
    mask = pad_sequence([torch.ones_like(each) for each in sequences], batch_first=True)
    hidden = torch.cat(
        [backbone(**each.inputs).last_hidden_state for each in passes(Padded(ids, mask, torch.zeros_like(ids)))]
    )
    row, node, sequence, token = torch.tensor(places, device=ids.device).T
    found = hidden.new_zeros(len(lengths), 1 + nodes.tokens.shape[1], hidden.shape[2])
    return found.index_put((row, node), hidden[sequence, token])


def _count(nodes: Nodes) -> Tensor:
    return torch.arange(nodes.tokens.shape[1], device=nodes.tokens.device)
