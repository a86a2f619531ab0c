"""`lit-entrodrop harness`: run tasks of lm-evaluation-harness on a checkpoint."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lit_entrodrop.cli.parsing import call_with
from lit_entrodrop.commands.export import export
from lit_entrodrop.model.config import DType
from lit_entrodrop.runs.checkpoints.averages import Weights
from lit_entrodrop.runs.writing import check_writable, write_whole
from lit_entrodrop.runtime.setting_checks import check_at_least
from lit_entrodrop.runtime.shown_text import one_line
from lit_entrodrop.runtime.spelling import did_you_mean

# Parts of the results of the harness; others describe the machine.
KEPT = ("results", "groups", "versions", "n-shot", "n-samples", "higher_is_better")
# Of standard errors of metrics that are not means; the default of the harness takes minutes.
RESAMPLES = 1000


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    call_with(harness, "harness", arguments)


def harness(
    ckpt_path: str,
    tasks: str,
    include_path: str | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    chat: bool = False,
    dtype: DType | None = None,
    output: str | None = None,
    weights: Weights = "best",
) -> None:
    """Run tasks of EleutherAI's lm-evaluation-harness on a checkpoint.

    The checkpoint is exported to a temporary folder, as `lit-entrodrop export` does, so that the
    harness evaluates what others would load. Set TMPDIR if the disk of temporary files is small.
    Tasks that execute generated code are refused. Needs `pip install 'lit-entrodrop[lm-eval]'`.

    Args:
        ckpt_path: Path to the checkpoint, such as ``runs/mine/checkpoints/best.ckpt``.
        tasks: Names of tasks, with commas between them; patterns such as ``mmlu_*`` are allowed.
        include_path: Path to a folder with tasks of your own, in YAML. Python functions that they
            name are executed.
        num_fewshot: Number of examples in each prompt. Default: that of each task.
        limit: Maximum number of items of each task; null for all.
        batch_size: Number of items per forward pass.
        chat: Whether to render prompts with the chat template.
        dtype: Dtype of the weights. Default: ``lm.dtype``, in which they were stored.
        output: Path to a JSON file for the results; null for none.
        weights: Which weights of a run with `model.average`, as in `lit-entrodrop export`.

    Raises:
        ValueError: If the harness is not installed, a task is unknown or executes code, or the
            checkpoint is damaged.
    """
    check_at_least(1, limit=limit, batch_size=batch_size)
    check_at_least(0, num_fewshot=num_fewshot)
    if find_spec("lm_eval") is None:
        raise ValueError(
            "harness: expected the package lm-eval, found none: pip install "
            "'lit-entrodrop[lm-eval]'"
        )
    if output is not None:
        check_writable(Path(output))
    names = [name for each in tasks.split(",") if (name := each.strip())]
    if not names:
        raise ValueError(f"tasks: expected names of tasks, got {tasks!r}: see lm-eval ls tasks")
    manager = _task_manager(names, include_path)
    settings = {"num_fewshot": num_fewshot, "limit": limit, "apply_chat_template": chat}
    with TemporaryDirectory(prefix="lit-entrodrop-harness-") as folder:
        model = export(ckpt_path, str(Path(folder) / "model"), dtype=dtype, weights=weights)
        found = _evaluate(str(model), batch_size, manager, names, settings)
    from lm_eval.utils import make_table

    for part in ("results", "groups"):
        if found.get(part):
            print(make_table(found, part))
    if output is not None:
        kept = {name: found[name] for name in KEPT if name in found}
        facts = {"ckpt_path": ckpt_path, "lm_eval": version("lm_eval"), "limit": limit}
        write_whole(Path(output), json.dumps(facts | kept, indent=2, default=str))


def _evaluate(
    model: str, batch_size: int, manager: Any, names: Sequence[str], settings: Mapping[str, Any]
) -> Any:
    """Return the results of the harness for an exported model.

    Raises:
        ValueError: If a task cannot be run.
    """
    import lm_eval
    import torch
    from lm_eval.models.huggingface import HFLM

    device = str(torch.accelerator.current_accelerator(check_available=True) or "cpu")
    lm = HFLM(model, device=device, batch_size=batch_size, trust_remote_code=False)
    if settings["apply_chat_template"] and not lm.tokenizer.chat_template:
        raise ValueError(
            "chat: expected a model with a chat template, got one without: set chat to false"
        )
    try:
        return lm_eval.simple_evaluate(
            lm,
            tasks=manager.match_tasks(names),
            task_manager=manager,
            log_samples=False,
            bootstrap_iters=RESAMPLES,
            confirm_run_unsafe_code=False,
            **settings,
        )
    except Exception as error:  # a task can fail in any way that Python can
        raise ValueError(
            f"tasks: {', '.join(names)} cannot be run by lm-evaluation-harness "
            f"({type(error).__name__}: {one_line(error)}): correct the task, or choose another"
        ) from error


def _task_manager(names: Sequence[str], include_path: str | None) -> Any:
    """Return a task manager that knows all tasks.

    Raises:
        ValueError: If a name matches no task.
    """
    from lm_eval.tasks import TaskManager

    if include_path is not None and not Path(include_path).is_dir():
        raise ValueError(f"include_path: expected a folder of tasks, got {include_path}")
    if include_path is not None:
        manager = TaskManager(include_path=include_path, include_defaults=False)
        if all(manager.match_tasks([name]) for name in names):
            # The index of the tasks of the harness takes seconds.
            return manager
        if not manager.all_tasks:
            raise ValueError(
                f"include_path: expected .yaml files with a line `task: NAME`, got none in "
                f"{include_path} that can be read: add or correct one"
            )
    manager = TaskManager(include_path=include_path)
    for name in names:
        if not manager.match_tasks([name]):
            hint = did_you_mean(name, manager.all_tasks, "see lm-eval ls tasks")
            raise ValueError(f"tasks: expected names of tasks, got {name!r}: {hint}")
    return manager
