"""Checks of a config and a space before anything trains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_entrodrop.cli.fit_config import build_parts
from lit_entrodrop.commands.compare.planning.arm_checks import check_arms
from lit_entrodrop.commands.compare.planning.planned_run import PlannedRun
from lit_entrodrop.commands.tune.space.sampled_config import sampled_config
from lit_entrodrop.commands.tune.space.space import Space

WHY = {
    "validation": "the search minimizes the validation loss",
    "test": "the verdict is on text that the search has not seen",
}


def check_config(config: Mapping[str, Any]) -> None:
    """Check that a config for `fit` has the splits and no regularizers.

    Raises:
        ValueError: If not.
    """
    for split, why in WHY.items():
        if not config["data"].get(split):
            raise ValueError(
                f"data.{split}: expected a {split} split, as {why}, got none: set data.{split}: 0.1"
            )
    if names := [each["class_path"] for each in config["model"]["regularizers"]]:
        raise ValueError(
            f"model.regularizers: expected none, as the space of the search has them, got "
            f"{', '.join(names)}: remove them, or put them into `methods` of your --space"
        )


def check_space(config: Mapping[str, Any], space: Space) -> None:
    """Build the config and the parts of each alternative, at both ends of every range.

    Raises:
        ValueError: If a setting does not exist, or `fit` rejects a value.
    """
    for sample in space.corners():
        own = sampled_config(config, space, sample)
        check_arms([PlannedRun(sample.label, {}, 0, Path(), own)])


def prepare_data(config: Mapping[str, Any]) -> None:
    """Read and tokenize the text, which all runs then find in the cache.

    Raises:
        ValueError: If the text cannot be read.
    """
    build_parts(config)["data"].prepare_data()
