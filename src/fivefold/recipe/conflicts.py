"""What sections of a recipe ask of each other that can't be, a sentence each; a section tells its own mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import ValidationError

from fivefold.recipe.ensemble import READERS
from fivefold.recipe.generators import GeneratorSettings
from fivefold.recipe.section import Settings
from fivefold.recipe.training import LINEAR_KEYS

if TYPE_CHECKING:
    from fivefold.recipe.settings import Recipe


def conflicts(recipe: Recipe) -> list[str]:
    """All conflicts; an ensemble's models are looked at as recipes of their own."""
    rules = ALWAYS + (OF_ONE_MODEL if recipe.ensemble is None else OF_AN_ENSEMBLE)
    return [sentence for rule in rules for sentence in rule(recipe)]


def sections_that_nothing_reads(recipe: Recipe) -> Iterator[str]:
    """Sections and keys that the family doesn't read are mistakes, not silent no-ops."""
    family, objective, unread = recipe.model.family, recipe.objective, []
    if family == "linear":
        unread += [f"objective.{key}" for key in _changed(objective) if key not in LINEAR_KEYS]
        unread += ["training"] if recipe.training else []
        unread += ["objective.class_weights: positive"] if objective.class_weights == "positive" else []
    if isinstance(recipe.model, GeneratorSettings) and recipe.model.adapter is not None and recipe.training is not None:
        unread += ["training.head_learning_rate"] if recipe.training.head_learning_rate is not None else []
    if getattr(recipe.model, "loss", None) == "tokens":
        unread += [f"objective.{key}" for key in _changed(objective)]
    if family == "feedforward" and recipe.training is not None and recipe.training.gradient_checkpointing:
        unread.append("training.gradient_checkpointing")
    if family not in READERS["pretraining"] and recipe.pretraining is not None:
        unread.append("pretraining")
    if unread:
        yield f"model.family '{family}' doesn't use {', '.join(unread)}"


def frozen_layers_have_no_gradients(recipe: Recipe) -> Iterator[str]:
    """With all layers frozen, what says how layers learn is a mistake."""
    if recipe.training is None or getattr(recipe.model, "unfrozen_layers", None) != 0:
        return
    keys = [f"training.{key}" for key in ("layer_decay", "gradient_checkpointing") if key in _changed(recipe.training)]
    if keys:
        yield f"model.unfrozen_layers 0 doesn't use {', '.join(keys)}"


def something_trains(recipe: Recipe) -> Iterator[str]:
    """Only a model that can answer untrained may stay so."""
    model, untrained = recipe.model, recipe.training is not None and recipe.training.epochs == 0
    if not untrained:
        if model.family == "generator" and model.unfrozen_layers == 0:
            yield "model.unfrozen_layers 0 trains nothing of a generator: say training.epochs: 0 as well"
        return
    if model.family != "generator":
        yield "training.epochs 0 trains nothing, and only model.family 'generator' answers untrained"
    elif model.adapter is not None:
        yield "training.epochs 0 trains no model.adapter: leave it out"
    elif model.decoder is not None:
        yield "training.epochs 0 leaves a model.decoder's attention to its encoder random"


def prompts_are_asked(recipe: Recipe) -> Iterator[str]:
    """What is put around a record is for models as they are."""
    if not isinstance(recipe.model, GeneratorSettings):
        return
    used = [] if recipe.model.shots is None else ["model.shots"]
    used += ["model.endpoint"] if recipe.model.elsewhere else []
    used += ["several model.prompts"] if len(recipe.model.prompts) > 1 else []
    if used and (recipe.training is None or recipe.training.epochs):
        yield f"{' and '.join(used)} are for a model as it is: say training.epochs: 0 as well"


def shots_allowed(recipe: Recipe) -> Iterator[str]:
    """Nearest examples may be the record's own text in no form."""
    shots = recipe.model.shots if isinstance(recipe.model, GeneratorSettings) else None
    if shots is not None and shots.take == "nearest":
        yield from shots.problems(recipe.data.text, set(_swapped(recipe)), recipe.enrichment is not None)


def rewards_compare_pairs(recipe: Recipe) -> Iterator[str]:
    """A reward head needs pairs, which it reads in no order."""
    if getattr(recipe.model, "head", None) != "reward":
        return
    task, training = recipe.task, recipe.training
    if task.named and (task.swap is None or list(task.named) != [task.swap.target]):
        yield "model.head 'reward' compares two answers: it needs task.swap, and no target but its own"
    keys = ("swapped_training", "swapped_scoring")
    changed = [f"training.{key}" for key in keys if training is not None and not getattr(training, key)]
    if changed:
        yield f"model.head 'reward' doesn't use {', '.join(changed)}: it reads each answer alone"


def members_are_sound(recipe: Recipe) -> Iterator[str]:
    """What each member would be told as a recipe of its own, and sections that none of them reads."""
    for name in recipe.ensemble.members if recipe.ensemble else ():
        try:
            recipe.member(name)
        except ValidationError as error:
            said = [problem["msg"].removeprefix("Value error, ") for problem in error.errors()]
            yield f"ensemble.members.{name}: {'; '.join(said)}"
    idle = [name for name in recipe.unread if name in recipe.model_fields_set and getattr(recipe, name) is not None]
    if idle:
        yield f"no member of the ensemble reads {', '.join(idle)}: each has its own; take it out"


def labels_have_one_role(recipe: Recipe) -> Iterator[str]:
    """A label among the texts leaks, and as an id, group, weight or fold it is nonsense."""
    data, labels = recipe.data, recipe.task.named
    single = {role: getattr(data, role) for role in ("id", "group", "weight", "fold", "extra_fold")}
    roles = {"text": data.text} | {key: [name] for key, name in single.items() if name is not None}
    shared = [
        f"data.{role} and {labels[name]} both name '{name}'"
        for role, names in roles.items()
        for name in names
        if name in labels
    ]
    if shared:
        yield f"{'; '.join(shared)}: a label has no other role; take it out of one of them"


def folds_are_known(recipe: Recipe) -> Iterator[str]:
    """A hold-out is one of the folds, and a row for one fold's model needs folds that aren't drawn yet to be."""
    data, folds, shots = recipe.data, recipe.folds, getattr(recipe.model, "shots", None)
    if folds.only is not None and folds.only >= folds.count and not (folds.reuse or data.fold):
        yield f"folds.only must be below folds.count = {folds.count}"
    if data.extra_fold is None:
        return
    if data.extra is None or (folds.reuse is None and data.fold is None):
        yield "data.extra_fold numbers the folds of data.extra: it needs folds.reuse or data.fold"
    found = recipe.enrichment is not None and recipe.enrichment.catalogue is None
    if found or (shots is not None and shots.take == "nearest"):
        yield "data.extra_fold keeps rows from some folds, which find them as neighbours: drop one"


def enrichment_allowed(recipe: Recipe) -> Iterator[str]:
    """Neighbours must depend on nothing that is to be predicted."""
    if recipe.enrichment is None:
        return
    data = recipe.data
    roles = [name for name in (data.id, data.group, data.weight, data.fold) if name is not None]
    yield from recipe.enrichment.problems(data.text, recipe.task.named, _swapped(recipe), roles)


def swap_exchanges_texts(recipe: Recipe) -> Iterator[str]:
    """Only text columns trade places."""
    strange = [name for name in _swapped(recipe) if recipe.data.text and name not in recipe.data.text]
    if strange:
        yield f"task.swap.fields names {strange}, which data.text doesn't; name them in both or neither"


ALWAYS = (labels_have_one_role, folds_are_known, enrichment_allowed, swap_exchanges_texts)

OF_ONE_MODEL = (
    sections_that_nothing_reads,
    frozen_layers_have_no_gradients,
    something_trains,
    prompts_are_asked,
    shots_allowed,
    rewards_compare_pairs,
)

OF_AN_ENSEMBLE = (members_are_sound,)


def _changed(section: Settings) -> list[str]:
    return [key for key, field in type(section).model_fields.items() if getattr(section, key) != field.default]


def _swapped(recipe: Recipe) -> list[str]:
    """Columns that trade places."""
    swap = recipe.task.swap
    return [name for pair in (swap.fields if swap else ()) for name in pair]
