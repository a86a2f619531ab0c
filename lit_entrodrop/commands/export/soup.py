"""Mean of the weights of several checkpoints (a model soup)."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor

from lit_entrodrop.commands.export.weights import restore_model
from lit_entrodrop.data import TextDataModule
from lit_entrodrop.model.clean_pass import score_clean
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.runs.checkpoints.averages import Weights, choose_weights
from lit_entrodrop.runs.checkpoints.integrity import verify_checkpoint
from lit_entrodrop.runs.checkpoints.lazy_weights import LazyWeights, shapes
from lit_entrodrop.runs.checkpoints.reading import read_checkpoint
from lit_entrodrop.runtime.progress import track
from regularizers.functional import IGNORE_INDEX, predicted_labels

# Settings of `model.lm` that checkpoints must share; others decide only how a model is run.
SHARED = ("pretrained", "architecture", "tokenizer", "add_tokens", "dtype", "lora")


def read_mean(
    paths: Sequence[Path], weights: Weights = "best", greedy: bool = False
) -> tuple[dict[str, Any], list[Path]]:
    """Read a checkpoint, or the mean of several; return it, and the paths that are in the mean.

    A weight of the mean is computed on access from those of all checkpoints, in fp32. So memory is
    needed for one model.

    Args:
        paths: Paths to checkpoints.
        weights: Which weights of each.
        greedy: Whether to include a checkpoint only if it does not raise the validation loss.

    Source: Wortsman et al. 2022, Model soups (arXiv 2203.05482), uniform and greedy.

    Raises:
        ValueError: If the checkpoints are of different models or dtypes, or of adapters; or were
            validated on different text.
    """
    if (greedy and len(paths) == 1) or len({path.resolve() for path in paths}) < len(paths):
        raise ValueError(
            "average: expected paths to two different checkpoints or more, got "
            f"{', '.join(map(str, paths))}: name each once, and others after --average"
        )
    checkpoints = {path: read_checkpoint(path) for path in paths}
    for path, checkpoint in checkpoints.items():
        verify_checkpoint(path)
        checkpoint["weights"] = choose_weights(checkpoint, weights)
    if len(checkpoints) == 1:
        return checkpoints[paths[0]], list(paths)
    check_same(checkpoints)
    if greedy:
        check_same_validation(checkpoints)
    chosen = _greedy(checkpoints) if greedy else list(checkpoints)
    return mean_of([checkpoints[path] for path in chosen]), chosen


def mean_of(checkpoints: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the first of some checkpoints with the mean of the weights of all."""
    states = [checkpoint["state_dict"] for checkpoint in checkpoints]
    readers = {
        name: (shape, partial(_mean, states, name)) for name, shape in shapes(states[0]).items()
    }
    return {**checkpoints[0], "state_dict": LazyWeights(readers)}


def check_same(checkpoints: Mapping[Path, Mapping[str, Any]]) -> None:
    """Refuse checkpoints whose weights have no meaningful mean."""
    (first, expected), *others = checkpoints.items()
    if expected["lm"].get("lora"):
        raise ValueError(
            f"average: expected checkpoints of whole models, got {first} with LoRA adapters, the "
            "mean of whose factors is not the mean of the models: export each with merge_lora and "
            "average the folders elsewhere, or train with model.average"
        )
    data = LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY
    for path, checkpoint in others:
        different = [
            name for name in SHARED if checkpoint["lm"].get(name) != expected["lm"].get(name)
        ]
        different += [] if checkpoint["hf_config"] == expected["hf_config"] else ["config"]
        same_shapes = shapes(checkpoint["state_dict"]) == shapes(expected["state_dict"])
        different += [] if same_shapes else ["shapes of weights"]
        templates = [each.get(data, {}).get("chat_template") for each in (checkpoint, expected)]
        different += [] if templates[0] == templates[1] else ["chat template"]
        if different:
            raise ValueError(
                f"average: expected checkpoints of one model, tokenizer and dtype, got {path}, "
                f"which differs from {first} in {', '.join(different)}: leave it out"
            )


def check_same_validation(checkpoints: Mapping[Path, Mapping[str, Any]]) -> None:
    """Refuse checkpoints whose validation losses cannot be compared."""
    key = LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY
    (first, expected), *others = checkpoints.items()
    if not expected[key]["validation"]:
        raise ValueError(
            f"greedy: expected runs with validation text, got {first} without: leave it out, or "
            "average all without --greedy"
        )
    for path, checkpoint in others:
        # Text that one run validates on may be among the text that another trains on.
        same_training = checkpoint["trained_on"] == expected["trained_on"]
        if not same_training or checkpoint[key]["validation"] != expected[key]["validation"]:
            raise ValueError(
                "greedy: expected runs with the same training and validation text, whose losses "
                f"can be compared, got {path}, whose text differs from that of {first}: leave it "
                "out, or average all without --greedy"
            )


def validation_loss(checkpoint: dict[str, Any]) -> float:
    """Return the loss on the validation split of the checkpoint's run, nats per token."""
    kept: dict[str, Any] = checkpoint[LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY]
    # Lightning adds entries of its own.
    settings = {name: value for name, value in kept.items() if not name.startswith("_")}
    # One row at a time, because the logits of a batch may need more memory than the model.
    data = TextDataModule(**{**settings, "replay": None, "batch_size": 1})
    data.check_requested("validation")
    data.setup()
    causal_lm = restore_model(checkpoint, LMConfig.from_dict(checkpoint["lm"]))
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    causal_lm.to(device)
    loss, tokens = torch.zeros((), dtype=torch.float64), 0
    for batch in track(data.ordered_dataloader("validation"), "Validating", unit="blocks"):
        moved = {name: value.to(device) for name, value in batch.items()}
        valid = predicted_labels(moved["labels"], moved["document_ids"]) != IGNORE_INDEX
        loss += score_clean(causal_lm, moved).nll[valid].cpu().double().sum()
        tokens += int(valid.sum())
    return float(loss / tokens)


def list_in_one(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which `--average A B` is one checkpoint and a list of others.

    >>> list_in_one(["--average", "a.ckpt", "b.ckpt", "--output", "out"])
    ['--output', 'out', '--ckpt_path', 'a.ckpt', '--average', '["b.ckpt"]']
    """
    paths: list[str] = []
    others: list[str] = []
    is_path = False
    for each in arguments:
        name, equals, value = each.partition("=")
        if name == "--average":
            is_path = True
            paths += [value] * bool(equals)
            continue
        is_path = is_path and not each.startswith("--")
        (paths if is_path else others).append(each)
    if others == list(arguments) or any(each.startswith("[") for each in paths):
        return list(arguments)
    named = any(each.partition("=")[0] == "--ckpt_path" for each in others)
    first = [] if named or not paths else ["--ckpt_path", paths.pop(0)]
    return [*others, *first, "--average", json.dumps(paths)]


def _mean(states: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
    first = states[0][name]
    if not first.is_floating_point():
        return first
    mean = first.to(torch.float32, copy=True)
    for count, state in enumerate(states[1:], 2):
        mean.lerp_(state[name].float(), 1 / count)
    return mean


def _greedy(
    checkpoints: Mapping[Path, dict[str, Any]],
    loss_of: Callable[[dict[str, Any]], float] = validation_loss,
) -> list[Path]:
    """Add paths, best first, while the validation loss of their mean does not rise."""
    alone = {path: loss_of(checkpoint) for path, checkpoint in checkpoints.items()}
    order = sorted(alone, key=lambda path: alone[path])
    chosen, best = order[:1], alone[order[0]]
    for path in order[1:]:
        loss = loss_of(mean_of([checkpoints[each] for each in (*chosen, path)]))
        if loss <= best:
            chosen, best = [*chosen, path], loss
        print(f"{path}: {loss:.4f} with it, {'included' if path in chosen else 'left out'}")
    return chosen
