"""Recipes: training as data."""

from stresnet.recipes.loading import differing_fields, load_recipe, packaged_recipes, parse_recipe
from stresnet.recipes.schema import IMAGENET, LATE_FUSION, Balance, Optimisation, Phase, Recipe, Stage

__all__ = [
    "IMAGENET",
    "LATE_FUSION",
    "Balance",
    "Optimisation",
    "Phase",
    "Recipe",
    "Stage",
    "differing_fields",
    "load_recipe",
    "packaged_recipes",
    "parse_recipe",
]
