"""The recipe: a config for `fit`, with the reason to use it."""

from collections.abc import Mapping, Sequence
from itertools import chain
from textwrap import wrap
from typing import Any

import yaml

from lit_entrodrop.commands.compare.planning.config_differences import flatten
from lit_entrodrop.commands.tune.result.decision import use_winner
from lit_entrodrop.commands.tune.result.finals import Finals
from lit_entrodrop.commands.tune.result.summary import verdict_sentence

FILE_NAME = "recipe.yaml"
WIDTH = 100


def reasons(finals: Finals) -> list[str]:
    """Return why the recipe should be used, in sentences."""
    verdict, seeds = verdict_sentence(finals), len(finals.plain.runs)
    kind = "recipe" if use_winner(finals.finding) else "plain recipe"
    scores = [f"{name} {trial.score:.4f}" for name, trial in finals.validated.items()]
    return [
        f"Use this {kind}. {verdict}.",
        f"The difference is that of the test split, over {seeds} new seeds that had no part in the "
        "search. Plain fine-tuning was tuned with as many trials.",
        f"Mean validation loss with these seeds: {', '.join(scores)}.",
        *(f"{name} was left out: a run with a new seed diverged." for name in finals.diverged),
    ]


def changes(config: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[str]:
    """Return the settings of a recipe that differ from the config of the search."""
    own, earlier = flatten(recipe), flatten(config)
    return [
        f"{name}: {value}" + (f" (was {earlier[name]})" if name in earlier else "")
        for name, value in own.items()
        if name not in earlier or earlier[name] != value
    ]


def recipe_config(finals: Finals, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the complete config of the recipe, with the seed of the search."""
    own = dict(finals.chosen.runs[0].config) | {"seed_everything": config["seed_everything"]}
    own["trainer"] = dict(own["trainer"]) | {"default_root_dir": "runs/recipe"}
    return own


def recipe_text(
    recipe: Mapping[str, Any], changed: Sequence[str], sentences: Sequence[str], folder: str
) -> str:
    """Return the content of ``recipe.yaml``.

    >>> print(recipe_text({"seed": 0}, [], ["Use this."], "runs/tune"), end="")
    # Use this.
    # lit-entrodrop fit --config runs/tune/recipe.yaml
    #
    # Changes to the config of the search:
    seed: 0
    """
    comments = [
        *sentences,
        f"lit-entrodrop fit --config {folder}/{FILE_NAME}",
        "",
        "Changes to the config of the search:",
        *(f"  {each}" for each in changed),
    ]
    wrapped = (wrap(each, WIDTH, subsequent_indent="  ") or [""] for each in comments)
    header = "".join(f"# {line}".rstrip() + "\n" for line in chain.from_iterable(wrapped))
    return header + str(yaml.safe_dump(dict(recipe), sort_keys=False))
