"""What tests of networks share: a small WordPiece tokenizer, a tiny encoder, the labels of the demo tweets, and
classifiers as recipes make them."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from fivefold.data.demo import demo
from fivefold.models.base import Classifier
from fivefold.models.families import maker
from fivefold.recipe import build_recipe
from fivefold.task import Task

EMOTIONS = tuple(column for column in demo("tweets", 40).columns if column not in {"id", "text"})

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}

TINY = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
"""A random encoder of 16 units and two layers."""


def word_pieces(words: int = 400) -> PreTrainedTokenizerFast:
    """BERT's kind of tokenizer, trained on demo tweets; knows the words good and bad."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=words, special_tokens=list(SPECIAL.values()), show_progress=False)
    texts = [*demo("tweets", 200, seed=5)["text"], *["good bad"] * 200]
    tokenizer.train_from_iterator(texts, trainer)
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)


def unfitted(task: Task, metric: str = "f1_macro", **sections: Any) -> Classifier:
    """The classifier of a recipe with these sections."""
    recipe = build_recipe(sections)
    assert recipe.training is not None
    settings = recipe.model.model_dump(exclude={"family"}) | {
        "metric": metric,
        "objective": recipe.objective.model_dump(),
        "training": recipe.training.model_dump(),
    }
    return maker(task, recipe.model.family, 7, settings)()
