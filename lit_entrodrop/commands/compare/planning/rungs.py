"""Runs on parts of the training text."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from typing import Any

from lit_entrodrop.cli.fit_config import build_parts
from lit_entrodrop.commands.compare.planning.ladder import Ladder
from lit_entrodrop.commands.compare.planning.planned_run import PlannedRun


def check_epochs(run: PlannedRun) -> None:
    """Check that a run ends after a number of epochs, which all rungs share.

    Raises:
        ValueError: If it ends after a number of steps or a time.
    """
    trainer = run.config["trainer"]
    limits = {name: trainer.get(name) for name in ("max_steps", "max_time", "limit_train_batches")}
    set_limits = [name for name, value in limits.items() if value not in (None, -1, 1.0)]
    if trainer.get("max_epochs") in (None, -1) or set_limits:
        found = ", ".join(f"trainer.{name}: {limits[name]}" for name in set_limits)
        raise ValueError(
            "ladder: expected trainer.max_epochs alone to limit the training, as all parts of the "
            f"text get the same number of epochs, got {found or 'no trainer.max_epochs'}: set "
            "trainer.max_epochs, and leave out the others"
        )


def check_sizes(ladder: Ladder, tokens: Sequence[int]) -> None:
    """Check that each share of a ladder has more tokens than the one before.

    Raises:
        ValueError: If not, as in a text of few documents.
    """
    if any(count >= following for count, following in pairwise(tokens)):
        raise ValueError(
            f"ladder: expected more tokens for each share of the text, got {list(tokens)} for "
            f"{list(ladder.shares)}, as parts have whole documents: give shares that differ more"
        )


def plan_rungs(
    runs: Sequence[PlannedRun], baseline: str, ladder: Ladder, tokens: int
) -> list[PlannedRun]:
    """Return the runs on parts of the text: all rungs of the baseline, one of each other arm.

    The documents of a split keep their order, and training takes the first ones up to a number of
    tokens. So the parts are nested, and the other splits stay the same.

    Args:
        runs: Runs on the whole text at the selected strength of each arm, for each seed.
        baseline: Arm with all rungs.
        ladder: Shares of the text.
        tokens: Number of tokens of the whole training text.
    """
    planned = []
    for run in runs:
        shares = ladder.shares if run.arm == baseline else (ladder.at,)
        for share in (each for each in shares if each < 1):
            folder = run.folder.parent / f"ladder={share}" / run.folder.name
            config = deepcopy(run.config)
            config["data"]["max_train_tokens"] = round(share * tokens)
            config["trainer"]["default_root_dir"] = str(folder)
            planned.append(replace(run, folder=folder, config=config, share=share))
    return planned


def prepared_tokens(config: Mapping[str, Any]) -> int:
    """Read and tokenize the text of a run, which `fit` then finds in the cache; count its tokens.

    Raises:
        ValueError: If the text cannot be used.
    """
    data = build_parts(config)["data"]
    data.prepare_data()
    data.setup()
    return int(data.blocks("train").num_tokens)
