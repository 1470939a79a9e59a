"""Heads for masked tokens, of which DeBERTa-v2 has two in transformers."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForMaskedLM, DebertaV2ForMaskedLM


def masked_lm_class(config: Any) -> Any:
    """What loads a backbone with this config under its head for masked tokens."""
    newer = config.model_type == "deberta-v2" and not config.legacy
    return _NewerDebertaForMaskedLM if newer else AutoModelForMaskedLM


class _NewerDebertaForMaskedLM(DebertaV2ForMaskedLM):
    """DeBERTa-v2 under `legacy: false`, which transformers 5.17 can't load: it ties a weight that this head hasn't."""

    def post_init(self) -> None:
        """Tie nothing; the head multiplies by the embeddings themselves."""
        self._tied_weights_keys: dict[str, str] = {}
        super().post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def from_config(cls, config: Any) -> Any:
        """Random weights, as `AutoModelForMaskedLM.from_config` draws them."""
        return cls._from_config(config)  # type: ignore[no-untyped-call]
