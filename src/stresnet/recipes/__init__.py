"""Recipes: a network and its stages of training, as data."""

from stresnet.recipes.schema import IMAGENET, Phase, Recipe, Stage, load_recipe, packaged_recipes, parse_recipe

__all__ = ["IMAGENET", "Phase", "Recipe", "Stage", "load_recipe", "packaged_recipes", "parse_recipe"]
