"""Recipes: one small TOML file for each published run, in this folder; any settings file may build on one.

A file holds settings of `TrainConfig`, and two keys more: ``recipe`` names the recipe that it builds on, ``about``
says in one line what it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgn.config import TrainConfig
from qgn.errors import TrainingError
from qgn.settings import checked, read_toml

FOLDER = Path(__file__).parent
_OWN_KEYS = ("recipe", "about")


def recipe_names() -> tuple[str, ...]:
    """Return the names of all recipes, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def about(name: str) -> str:
    """Return what a recipe is, in one line."""
    return str(read_toml(recipe_file(name))["about"])


def recipe_file(name: str) -> Path:
    """Return a recipe's file; raise TrainingError if there is none of this name."""
    if name not in recipe_names():
        raise TrainingError(f"recipe {name!r} does not exist, expected one of {', '.join(recipe_names())}")
    return FOLDER / f"{name}.toml"


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a file, over those of the recipes that it builds on.

    Raises
    ------
    TrainingError : no such file, an unknown key, a value of another kind, or a recipe that does not exist.
    """
    values = read_toml(path)
    own = {key: values.pop(key) for key in _OWN_KEYS if key in values}
    settings = checked(TrainConfig, values, str(path))
    if "recipe" not in own:
        return settings
    base = recipe_file(str(own["recipe"]))
    if base == path.resolve():
        raise TrainingError(f"{path}: builds on itself. Name another recipe")
    return read_settings(base) | settings
