"""The encoder family: a BERT-like backbone, fine-tuned or frozen, under a head or with prompts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from torch import nn

from fivefold.data.compose import Corpus
from fivefold.models.backbones.architectures import count_full_attention
from fivefold.models.backbones.backbone import Backbone, load_encoder, load_masked_lm
from fivefold.models.encoder.prompted import PromptedNet, answer_id, prompt_lead
from fivefold.models.pooled.classifier import PooledClassifier
from fivefold.task import FloatArray, Task


class EncoderClassifier(PooledClassifier):
    """One fold of the encoder family; settings as in the recipe's section `model`."""

    def __init__(
        self, task: Task, *, prompt: str, prompt_labels: Mapping[str, str], yes: str, no: str, **common: Any
    ) -> None:
        super().__init__(task, **common)
        self.prompt, self.prompt_labels, self.answers = prompt, dict(prompt_labels), (yes, no)

    @property
    def prompted(self) -> bool:
        """Whether labels are read off masked slots."""
        return bool(self.head == "prompted")

    @property
    def frozen(self) -> bool:
        """Whether the trunk has to be run once only; a prompted head reads single tokens, whose vectors aren't kept."""
        return super().frozen and not self.prompted

    @cached_property
    def lead(self) -> Any:
        """The slots of a prompted head, int32 (tokens,); none for others."""
        if not self.prompted:
            return super().lead
        return prompt_lead(self.task, self.tokenizer, self.prompt, self.prompt_labels)

    def load_backbone(self, seed: int) -> Backbone:
        """The encoder, with its masked-language-model head where labels are read off that."""
        return (load_masked_lm if self.prompted else load_encoder)(self.origin, self.tokenizer, seed=seed)

    def over(self, model: Any, biases: FloatArray | None, seed: int) -> nn.Module:
        """Pooling and a fresh head, or the slots of a prompt, over a backbone."""
        if not self.prompted:
            return super().over(model, biases, seed)
        yes, no = (answer_id(self.tokenizer, word) for word in self.answers)
        return PromptedNet(
            model,
            mask=self.tokenizer.mask_token_id,
            yes=yes,
            no=no,
            width=self.task.width,
            fields=self.reading.fields,
            attention=self.origin.attention,
            unfrozen_layers=self.unfrozen_layers,
        )

    def remarks(self, corpus: Corpus) -> tuple[str, ...]:
        """Also what BigBird reads with full attention."""
        said = list(super().remarks(corpus))
        tokens = self.sequences(corpus).inputs.tokens
        full = count_full_attention(self.config, tokens.lengths)
        if full and self.origin.attention != "sparse":
            said.append(f"BigBird reads {full / len(tokens):.1%} of the inputs with full attention: they are short.")
        return tuple(said)
