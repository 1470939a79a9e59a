"""The feed-forward family: the mean of word embeddings under hidden layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from fivefold.data.compose import Corpus, Rows
from fivefold.models.backbones.backbone import Origin, load_encoder, load_tokenizer
from fivefold.models.networks.material import Sequences
from fivefold.models.networks.network import Network
from fivefold.models.networks.reading import cache_for, read_both_ways, truncation_remarks
from fivefold.objectives.weights import label_biases
from fivefold.task import Labels, Task
from fivefold.training.inputs import Inputs, Template, Truncation, joined
from fivefold.training.tokens import plain_tokenizer, tokenise

PAD, UNKNOWN = "[PAD]", "[UNK]"

BARE = Template(prefix=(), middle=(), suffix=(), second_type=0)
"""Nothing stands around the words."""

NET = "feedforward.safetensors"


class MeanEmbeddingNet(nn.Module):
    """Embeddings, their mean over a row's tokens, hidden layers with ReLU and dropout, and a linear head.

    Parameters
    ----------
    embedding
        float32 (vocabulary, width), what embeddings begin as.
    hidden
        Width of each hidden layer.
    biases
        What the head's bias begins as, (logits,).
    """

    reentrant = True

    def __init__(self, embedding: Tensor, hidden: list[int], dropout: float, biases: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(embedding, freeze=False)
        widths = [embedding.shape[1], *hidden]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, hidden, strict=False))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], len(biases))
        with torch.no_grad():
            self.head.bias.copy_(biases)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Tensor) -> Tensor:
        """Logits (rows, width) of ids (rows, tokens); places that the mask leaves out count nothing."""
        mask = attention_mask.unsqueeze(-1).to(self.embedding.weight.dtype)
        summed = (self.embedding(input_ids) * mask).sum(1)
        vector = self.dropout(summed / mask.sum(1).clamp(min=1))
        for layer in self.hidden:
            vector = self.dropout(torch.relu(layer(vector)))
        logits: Tensor = self.head(vector)
        return logits


class FeedForwardClassifier(Network):
    """One fold of the feed-forward family; settings as in the recipe's section `model`."""

    def __init__(
        self,
        task: Task,
        *,
        vocabulary: str | None,
        words: int,
        min_count: int,
        embedding: int,
        pretrained_embeddings: bool,
        hidden: list[int],
        dropout: float,
        max_tokens: int,
        **common: Any,
    ) -> None:
        super().__init__(task, **common)
        self.vocabulary, self.words, self.min_count = vocabulary, words, min_count
        self.embedding, self.pretrained_embeddings = embedding, pretrained_embeddings
        self.hidden, self.dropout = list(hidden), dropout
        self.truncation = Truncation(max_tokens)
        self.tokenizer: Any = None if vocabulary is None else load_tokenizer(vocabulary)
        self.net: MeanEmbeddingNet | None = None

    def learn_vocabulary(self, train: Rows) -> None:
        """The most frequent words of the training rows, unless a tokenizer was named or one was learnt."""
        if self.tokenizer is None:
            self.tokenizer = word_tokenizer(train, self.words, self.min_count)

    def sequences(self, corpus: Corpus) -> Sequences:
        """The words of all fields one after the other."""
        plain = plain_tokenizer(self.tokenizer)
        key = f"feedforward:{self.truncation.max_tokens}:{plain}"
        return Sequences(corpus.once(key, self._inputs), self.tokenizer.pad_token_id)

    def _inputs(self, fields: Mapping[str, Any]) -> Inputs:
        texts = read_both_ways(fields, self.task.swap)
        named = self.vocabulary is not None  # an own vocabulary is another one in every fold
        tokens = {n: tokenise(t, self.tokenizer, cache_for(t) if named else None) for n, t in texts.items()}
        return joined(tokens, BARE, self.truncation)

    def build(self, labels: Labels | None, seed: int) -> MeanEmbeddingNet:
        """An untrained net, its head at the label rates."""
        biases = np.zeros(self.task.width, dtype=np.float32) if labels is None else label_biases(labels)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return MeanEmbeddingNet(self._embedding(seed), self.hidden, self.dropout, torch.from_numpy(biases))

    def _embedding(self, seed: int) -> Tensor:
        """What embeddings begin as: drawn, or those of the named model."""
        if self.pretrained_embeddings:
            model = load_encoder(Origin(self.vocabulary), self.tokenizer, seed=seed).model
            found: Tensor = model.get_input_embeddings().weight.detach().clone()
            return found
        return torch.randn(len(self.tokenizer), self.embedding).mul(self.embedding**-0.5)

    def trained(self, net: nn.Module) -> nn.Module:
        """All of it."""
        return net

    def depths(self, net: nn.Module) -> list[Mapping[str, nn.Parameter]]:
        """Embeddings, hidden layers, head."""
        depths: list[dict[str, nn.Parameter]] = [{} for _ in range(len(self.hidden) + 2)]
        for name, parameter in net.named_parameters():
            kind, *rest = name.split(".")
            depth = {"embedding": 0, "head": len(depths) - 1}.get(kind)
            depths[1 + int(rest[0]) if depth is None else depth][name] = parameter
        return list(depths)

    def remarks(self, corpus: Corpus) -> tuple[str, ...]:
        """How much was truncated."""
        return truncation_remarks(self.sequences(corpus).inputs, len(corpus))

    def save(self, folder: Path) -> None:
        """Write the net as safetensors, and the vocabulary."""
        assert self.net is not None
        self.tokenizer.save_pretrained(folder)
        save_file({name: t.detach().cpu().contiguous() for name, t in self.net.state_dict().items()}, folder / NET)

    def load(self, folder: Path) -> None:
        """Become the model that `save` wrote."""
        self.tokenizer = load_tokenizer(str(folder))
        weights = load_file(folder / NET)
        self.net = MeanEmbeddingNet(
            weights["embedding.weight"], self.hidden, self.dropout, torch.zeros(self.task.width)
        )
        self.net.load_state_dict(weights)
        self.net.eval()
        self.resumed = True


def word_tokenizer(train: Rows, words: int, min_count: int) -> PreTrainedTokenizerFast:
    """A tokenizer of lower-cased words and punctuation that occur at least `min_count` times in the training rows."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=words + 2, min_frequency=min_count, special_tokens=[PAD, UNKNOWN], show_progress=False
    )
    texts = (text for name in train.corpus.fields for text in train.texts(name))
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN)
