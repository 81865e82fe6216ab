"""Recipes: named methods of the literature."""

from monge.recipes.rows import ALIASES, RECIPES

__all__ = ["ALIASES", "RECIPES"]
