"""Keys of the sections `objective`, `training` and `pretraining`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from fivefold.recipe.section import Choices, Settings

FOCAL_KEYS = ("focal_gamma",)
ASYMMETRIC_KEYS = ("asymmetric_positive", "asymmetric_negative", "asymmetric_margin")
RDROP_KEYS = ("rdrop_categorical", "rdrop_start_step")
LOVASZ = ("lovasz_rows", "lovasz_labels")
LINEAR_KEYS = ("class_weights", "weight_cap")


class ObjectiveSettings(Choices):
    """What training minimises."""

    class_weights: Literal["none", "balanced", "positive"] = Field(
        "none",
        description="balanced: rows / (2 rows_of_side), of a class rows / (classes rows_of_class); "
        "positive: rows_without / rows_with for labels that are present",
    )
    weight_cap: float | None = Field(None, gt=0, le=1e6, description="no class weight above this")
    binary: Literal["bce", "focal", "asymmetric", "lovasz_rows", "lovasz_labels"] = Field(
        "bce", description="loss of the binaries; lovasz: symmetric Lovász hinge, over a row's labels or a label's rows"
    )
    binary_reduction: Literal["mean", "sum"] = Field("mean", description="over a row's binaries")
    focal_gamma: float = Field(2.0, ge=0, le=10, description="focal: how little easy labels count")
    asymmetric_positive: float = Field(0.0, ge=0, le=10, description="asymmetric: focus on labels that are present")
    asymmetric_negative: float = Field(4.0, ge=0, le=10, description="asymmetric: focus on labels that are absent")
    asymmetric_margin: float = Field(
        0.05, ge=0, lt=1, description="asymmetric: probability below which absence is free"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of a categorical's target spread over its classes"
    )
    head_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {}, description="'binary' or a categorical: how much its loss counts; those left out count 1"
    )
    rdrop_alpha: float = Field(0.0, ge=0, le=1000, description="R-Drop: how much two passes must agree; 0: one pass")
    rdrop_categorical: float = Field(
        1.0, ge=0, le=1000, description="R-Drop: how much symmetric KL on categoricals counts beside MSE on binaries"
    )
    rdrop_start_step: int = Field(0, ge=0, description="R-Drop: before this step one pass, without dropout")

    @property
    def idle(self) -> Mapping[str, tuple[str, ...]]:
        """Keys that the chosen loss doesn't read."""
        unread = {"focal": FOCAL_KEYS, "asymmetric": ASYMMETRIC_KEYS}
        other = [key for loss, keys in unread.items() if loss != self.binary for key in keys]
        lovasz = ("binary_reduction",) if self.binary in LOVASZ else ()
        return {
            f"binary '{self.binary}'": (*other, *lovasz),
            f"rdrop_alpha {self.rdrop_alpha:g}": () if self.rdrop_alpha else RDROP_KEYS,
            f"class_weights '{self.class_weights}'": ("weight_cap",) if self.class_weights == "none" else (),
        }


def _warmup(value: float | str) -> float | str:
    if isinstance(value, str) and not re.fullmatch(r"\d+ steps|\d+(\.\d+)? epochs", value):
        raise ValueError("must be a share such as 0.1, '200 steps' or '2 epochs'")
    return value


Warmup = Annotated[Annotated[float, Field(ge=0, lt=1)] | str, AfterValidator(_warmup)]


class OptimiserSettings(Settings):
    """How weights are learnt: what fine-tuning and pretraining share."""

    epochs: float = Field(3.0, gt=0, le=10_000, description="passes over the training rows")
    batch_size: int = Field(32, ge=1, le=1_000_000, description="rows of an optimiser step")
    tokens_per_pass: int | None = Field(
        None,
        ge=1,
        description="tokens of a forward pass at most, larger batches are accumulated; none: as suits the device",
    )
    learning_rate: float = Field(5e-5, gt=0, le=10, description="peak of the schedule")
    weight_decay: float = Field(0.01, ge=0, le=1, description="decoupled; none on norms and biases")
    schedule: Literal["linear", "cosine", "constant", "plateau"] = Field(
        "linear", description="after warm-up; plateau: divided by ten when the validation metric stops rising"
    )
    warmup: Warmup = Field(0.1, description="share of all steps, or '200 steps', or '2 epochs'")
    clip: float | None = Field(1.0, gt=0, description="norm of the gradient at most; none: not clipped")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="of training; auto: bf16 where the chip computes in it, else fp16 on a GPU and fp32 on a CPU",
    )
    gradient_checkpointing: bool = Field(False, description="compute activations twice to hold fewer of them")
    evaluations_per_epoch: int = Field(1, ge=1, le=1000, description="how often the validation rows are scored")
    restarts: int = Field(
        2, ge=0, le=100, description="times that a diverged training goes back and takes another seed"
    )
    checkpoint_minutes: float = Field(
        5.0, ge=0, description="time between checkpoints, from which a killed fit resumes"
    )
    trackers: list[
        Literal["tensorboard", "wandb", "trackio", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab"]
    ] = Field([], description="where curves go besides the run folder, through Accelerate")


class TrainingSettings(OptimiserSettings):
    """How a network is fine-tuned."""

    epochs: float = Field(
        3.0, ge=0, le=10_000, description="passes over the training rows; 0: a generator answers as it is"
    )
    head_learning_rate: float | None = Field(
        None, gt=0, le=10, description="of the head, unless it is tied to the embeddings; none: learning_rate"
    )
    layer_decay: float = Field(1.0, gt=0, le=1, description="learning rate of a layer as a share of the one above it")
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of a moving average of the weights, which is then scored"
    )
    keep: Literal["last", "best"] = Field(
        "last", description="which weights remain: the last, or those of the best evaluation"
    )
    patience: int | None = Field(None, ge=1, description="stop after so many evaluations without a better one")
    validation: Literal["held_out", "inner"] = Field(
        "inner",
        description="rows that choose 'best' and when to stop: the fold's own, as the contests did, "
        "or a tenth of its training rows, which leaves out-of-fold scores honest",
    )
    swapped_training: bool = Field(True, description="with task.swap: train on every row in both orders")
    swapped_scoring: bool = Field(True, description="with task.swap: score every row as the mean of both orders")
    continue_from: str | None = Field(
        None, description="a finished run with the same folds, whose weights are trained on"
    )
    adapter_from: str | None = Field(
        None, description="a finished run of one adapter like model.adapter, which is learnt on under a fresh head"
    )

    @model_validator(mode="after")
    def _one_beginning(self) -> TrainingSettings:
        if self.continue_from is not None and self.adapter_from is not None:
            raise ValueError("continue_from and adapter_from both say what to start from; name one")
        return self


class PretrainingSettings(Choices):
    """Language modelling on the texts, without labels, before the folds."""

    objective: Literal["masked", "causal"] = Field("masked", description="masked or next-token language modelling")
    layout: Literal["lines", "blocks"] = Field(
        "lines", description="a text an input, or all texts in blocks end to end"
    )
    block_tokens: int = Field(512, ge=8, description="tokens of an input at most")
    masked_share: float = Field(0.15, gt=0, lt=1, description="masked: share of tokens to be guessed")
    test_texts: bool = Field(False, description="also read the texts of data.test")
    validation_share: float = Field(0.05, gt=0, le=0.5, description="share of the texts that measures perplexity")
    training: OptimiserSettings = Field(OptimiserSettings(), description="keys of `training` down to `trackers`")

    @property
    def idle(self) -> Mapping[str, tuple[str, ...]]:
        """Keys that the chosen objective doesn't read."""
        return {"objective 'causal'": ("masked_share",)} if self.objective == "causal" else {}
