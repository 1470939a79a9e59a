"""The recipe: one YAML file, checked as a whole before anything runs."""

from fivefold.recipe.load import build_recipe, dump_recipe, load_recipe
from fivefold.recipe.settings import Recipe

__all__ = ["Recipe", "build_recipe", "dump_recipe", "load_recipe"]
