"""Recipes: a network and its stages of training, as data."""

from stresnet.recipes.schema import IMAGENET, Rate, Recipe, Stage, load_recipe, packaged_recipes, parse_recipe

__all__ = ["IMAGENET", "Rate", "Recipe", "Stage", "load_recipe", "packaged_recipes", "parse_recipe"]
