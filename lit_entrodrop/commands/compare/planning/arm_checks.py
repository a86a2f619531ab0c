"""Checks of all arms before the first one trains."""

from collections.abc import Sequence

from lit_entrodrop.cli.fit_config import build_parts
from lit_entrodrop.commands.compare.planning.planned_run import PlannedRun
from lit_entrodrop.commands.compare.planning.strengths import trial_name
from lit_entrodrop.model.building import build_hf_config
from lit_entrodrop.runtime.shown_text import one_line
from lit_entrodrop.training.module import LitCausalLM
from lit_entrodrop.training.optim import check_can_step
from lit_entrodrop.training.preflight.config import check_order, check_replay
from lit_entrodrop.training.preflight.model import check_context
from lit_entrodrop.training.preflight.optimizer import check_schedule_of


def check_arms(runs: Sequence[PlannedRun]) -> None:
    """Build regularizers, optimizer, order and callbacks of every arm and strength, but no model.

    Raises:
        ValueError: If one is refused; the message names its arm.
    """
    # The seeds of an arm differ in nothing else.
    for run in {(run.arm, trial_name(run.strength)): run for run in runs}.values():
        _check(run)


def _check(run: PlannedRun) -> None:
    try:
        parts = build_parts(run.config)
        module: LitCausalLM = parts["model"]
        optimizer = check_can_step(module.optimization.make)
        check_schedule_of(optimizer, module.optimization.lr_schedule)
        check_context(build_hf_config(module.lm), parts["data"].block_size)
        check_order(parts["data"].order, module.regularizers.requirements)
        check_replay(parts["data"].replay, module.regularizers.requirements)
    except Exception as error:  # of any plug-in
        place = " at ".join(filter(None, [f"arms.{run.arm}", trial_name(run.strength)]))
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{place}: {kind}{one_line(error)}") from error
