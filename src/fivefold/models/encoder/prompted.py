"""The prompted head: a masked yes-or-no slot a logit at the front of the text, read by the masked-language-model head.

After Schick and Schütze, "Exploiting Cloze Questions for Few Shot Text Classification" (arXiv 2001.07676).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fivefold.errors import FivefoldError
from fivefold.models.backbones.backbone import Attention, save_backbone
from fivefold.models.backbones.net import Net
from fivefold.models.backbones.passes import Pass, in_batch_order, real_first
from fivefold.models.pooled.net import merge_fields
from fivefold.models.pooled.pooling import FieldMerge
from fivefold.task import Binary, IntArray, Task


def prompt_lead(task: Task, tokenizer: Any, prompt: str, prompt_labels: Mapping[str, str]) -> IntArray:
    """Ids of all slots, one a logit in the order of the task, to stand before the text; int32 (tokens,).

    Parameters
    ----------
    prompt
        A slot, in which {label} and {mask} are filled in.
    prompt_labels
        Logit to the words that stand for it; by default its own name, or its target's and class's.

    Raises
    ------
    FivefoldError
        If the tokenizer has no mask token, words name no logit, or hold a special token.
    """
    if tokenizer.mask_token_id is None:
        raise FivefoldError(
            "model.head 'prompted' needs a backbone whose tokenizer has a mask token.",
            next_step="take a backbone trained as a masked language model, or head: linear",
        )
    strange = sorted(set(prompt_labels) - set(task.columns))
    if strange:
        raise FivefoldError(
            f"model.prompt_labels names {strange}, which are no logits.", allowed=", ".join(task.columns[:20])
        )
    words = _default_words(task) | dict(prompt_labels)
    slots = [
        prompt.replace("{mask}", tokenizer.mask_token).replace("{label}", words[column]) for column in task.columns
    ]
    ids = tokenizer.encode(" ".join(slots), add_special_tokens=False)
    special = set(tokenizer.all_special_ids) - {tokenizer.mask_token_id, tokenizer.unk_token_id}
    if ids.count(tokenizer.mask_token_id) != task.width or special.intersection(ids):
        raise FivefoldError(
            "The words of a prompt hold a special token of the tokenizer.",
            allowed=f"{tokenizer.mask_token} only where the prompt says {{mask}}",
            next_step="give the label other words in model.prompt_labels",
        )
    return np.array(ids, dtype=np.int32)


def answer_id(tokenizer: Any, word: str) -> int:
    """The one token that `word` is within a sentence.

    Raises
    ------
    FivefoldError
        If it is several tokens, or unknown.
    """
    for text in (f" {word}", word):
        ids = tokenizer.encode(text, add_special_tokens=False)
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            return int(ids[0])
    raise FivefoldError(
        f"'{word}' isn't one token of the backbone's vocabulary.",
        got=" ".join(tokenizer.tokenize(f" {word}")),
        next_step="take other words for model.yes and model.no",
    )


class PromptedNet(Net):
    """A masked language model that says yes or no in the slots at the front of each sequence.

    Parameters
    ----------
    backbone
        A transformers masked language model, from `load_masked_lm`.
    width
        Slots of a sequence, logits of a row.
    mask, yes, no
        Ids of the mask token and of the two answers; a logit is logit(yes) - logit(no) in its slot.
    fields
        How logits of a row's parts become the row's; "joined": a row has one part.
    attention
        BigBird's attention, see `Passes`.
    unfrozen_layers
        Train only so many top layers and the head; None: everything.

    Raises
    ------
    FivefoldError
        If more layers are to be trained than there are.
    """

    def __init__(
        self,
        backbone: Any,
        *,
        width: int,
        mask: int,
        yes: int,
        no: int,
        fields: FieldMerge = "joined",
        attention: Attention = "auto",
        unfrozen_layers: int | None = None,
    ) -> None:
        super().__init__(backbone, attention=attention, unfrozen_layers=unfrozen_layers)
        self.width, self.mask, self.answers, self.fields = width, mask, (yes, no), fields

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        part: Tensor,
        owner: Tensor,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Logits of the rows of a batch, fp32 (rows, width); arguments as those of `PooledNet`, a sequence a part.

        Raises
        ------
        ValueError
            If a sequence hasn't `width` slots.
        """
        sequences = real_first(input_ids, attention_mask, token_type_ids)
        slots = self._slots(sequences.ids)
        places, scores = [], []
        for each in self.passes(sequences, leading=int(slots.max()) + 1):
            scores.append(self._scores(each, slots if each.index is None else slots[each.index]))
            places.append(each.index)
        return merge_fields(in_batch_order(places, scores), owner, self.fields)

    def save(self, folder: Path, tokenizer: Any) -> None:
        """Write the masked language model into `folder`; `Origin(str(folder))` names it."""
        save_backbone(self.backbone, tokenizer, folder)

    def _slots(self, ids: Tensor) -> Tensor:
        """Where the slots are, (S, width); text has no mask token, as it is tokenised with special tokens split."""
        found = (ids == self.mask).nonzero()[:, 1]
        if len(found) != len(ids) * self.width:
            raise ValueError(f"{len(found)} slots in {len(ids)} sequences of {self.width} logits")
        return found.view(len(ids), self.width)

    def _scores(self, each: Pass, slots: Tensor) -> Tensor:
        """logit(yes) - logit(no) in each slot, (n, width); the head sees the slots alone, not the whole sequence."""

        def keep_slots(module: nn.Module, args: Any, output: Any) -> Any:
            index = slots[:, :, None].expand(-1, -1, output.last_hidden_state.shape[2])
            output.last_hidden_state = output.last_hidden_state.gather(1, index)
            return output

        hook = self.trunk.register_forward_hook(keep_slots)
        try:
            answers = self._answer_weights()
            logits = functional_call(self.backbone, answers, (), each.inputs, tie_weights=False).logits
        finally:
            hook.remove()
        yes, no = (0, 1) if answers else self.answers
        scores: Tensor = logits[..., yes] - logits[..., no]
        return scores.float()

    def _answer_weights(self) -> dict[str, Tensor]:
        """The rows of the output layer that belong to the two answers, in place of the whole vocabulary.

        Empty where transformers names no such layer (DeBERTa-v3's head multiplies by the embeddings themselves).
        """
        output = self.backbone.get_output_embeddings()
        if not isinstance(output, nn.Linear) or output.out_features != self.backbone.config.vocab_size:
            return {}
        name = next(name for name, module in self.backbone.named_modules() if module is output)
        chosen = torch.tensor(self.answers, device=output.weight.device)
        weights = {f"{name}.weight": output.weight[chosen]}
        return weights if output.bias is None else weights | {f"{name}.bias": output.bias[chosen]}


def _default_words(task: Task) -> dict[str, str]:
    """Logit to the words that stand for it: underscores are spaces, a class follows its target."""
    words = {}
    for target in task.targets:
        own = [""] if isinstance(target, Binary) else target.classes
        for column, label in zip(target.columns, own, strict=True):
            words[column] = " ".join(f"{target.name} {label}".replace("_", " ").split())
    return words
