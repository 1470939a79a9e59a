"""Keys of the section `enrichment`: what a row's nearest neighbours add to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, model_validator

from fivefold.recipe.section import Choices, Names

LABELS = "labels"
"""What `take` says where neighbours vote instead of giving a text."""


class EnrichmentSettings(Choices):
    """Neighbours of each row in a catalogue, or among the training rows, and what is taken from them."""

    catalogue: str | list[str] | None = Field(
        None, description="file or files to search; none: the training rows, of which a fold's model finds its own only"
    )
    query: Names = Field([], description="text columns that are compared; empty: all of data.text")
    match: Names = Field([], description="catalogue: its columns that they are compared with")
    take: str = Field(
        LABELS, description="column that neighbours give as text; labels: the votes of training rows, for each target"
    )
    neighbours: int = Field(5, ge=1, le=1000, description="neighbours of a row at most")
    similarity: float = Field(0.5, gt=0, le=1, description="cosine that a neighbour must have")
    backbone: str | None = Field(
        None, description="hub id or folder of a sentence encoder, whose mean is taken; none: the packaged MiniLM"
    )
    index: Literal["auto", "flat", "hnsw", "ivfpq"] = Field(
        "auto", description="how neighbours are found; auto: flat (exact) for up to 50,000 texts, then approximate"
    )
    field: str = Field("neighbours", min_length=1, description="name of the text field that is added")

    @property
    def idle(self) -> Mapping[str, tuple[str, ...]]:
        """Keys that the other choices don't read."""
        return {"enrichment without 'catalogue'": ("match",)} if self.catalogue is None else {}

    @model_validator(mode="after")
    def _catalogue_whole(self) -> EnrichmentSettings:
        problems = []
        if self.catalogue is not None and not self.match:
            problems.append("a catalogue needs 'match', its columns to compare with")
        if self.catalogue is not None and self.take == LABELS:
            problems.append(
                "take 'labels' are the votes of training rows, and a catalogue has none: "
                "take a column of it, or leave 'catalogue' out"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def problems(
        self, text: Sequence[str], labels: Mapping[str, str], swapped: Sequence[str], roles: Sequence[str]
    ) -> list[str]:
        """What doesn't go with the rest of a recipe, a sentence each.

        Parameters
        ----------
        text
            The text columns; none where they are still to be inferred.
        labels
            Label column to the key that names it.
        swapped
            Columns that trade places.
        roles
            Columns that are ids, groups, weights or folds.
        """
        query = self.query or list(text)
        found = []
        if self.field in {*text, *labels, *roles}:
            found.append(f"enrichment.field: '{self.field}' is a column of the data; choose another name")
        if text and (strange := [name for name in query if name not in text]):
            found.append(f"enrichment.query: {strange} aren't among the text columns {list(text)}")
        if moved := [name for name in query if name in swapped]:
            found.append(f"enrichment.query: {moved} trade places in a pair, so neighbours would depend on its order")
        if swapped and self.take == LABELS:
            found.append("enrichment.take: votes depend on the order of a pair; take a column, or leave task.swap out")
        if self.take != LABELS and self.take in labels:
            found.append(
                f"enrichment.take: '{self.take}' is a label, and would be given away; take 'labels' for the votes of "
                "training rows"
            )
        if leaking := [name for name in self.match if name in labels]:
            found.append(f"enrichment.match: {leaking} are labels, which rows to predict don't have")
        return found
