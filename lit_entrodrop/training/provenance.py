"""Provenance: how a model was trained, as plain values for checkpoints and model cards."""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from inspect import signature
from pathlib import Path, PureWindowsPath
from typing import Any

import lightning as L

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.model.loading import PACKAGE_PREFIX, locate
from lit_entrodrop.runtime.machine import source_version
from lit_entrodrop.runtime.shown_text import one_line
from lit_entrodrop.training.averaging.settings import Average
from lit_entrodrop.training.optim import LRSchedule, Optimization
from regularizers import Curriculum, Regularizer, Regularizers

DESCRIBED = (Regularizer, Curriculum, LRSchedule, Average)
PACKAGES = ("torch", "lightning", "transformers")
# Settings of Lightning's Trainer that decide what is learned.
TRAINER = ("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "world_size")
DATA = (
    "block_size",
    "batch_size",
    "packing",
    "max_train_tokens",
    "split_seed",
    "repack",
    "train_on",
    "long_pairs",
)


def provenance(
    trainer: L.Trainer,
    data: TextDataModule,
    regularizers: Regularizers,
    optimization: Optimization,
    seed: int,
    metrics: Mapping[str, float],
    average: Average | None = None,
) -> dict[str, Any]:
    """Return how a model is being trained, as nested dicts of strings, numbers and lists.

    Names of corpora have no folders.
    """
    return {
        "regularizers": [settings_of(each) for each in regularizers.ordered],
        "optimizer": _optimizer(trainer),
        "lr_schedule": settings_of(optimization.lr_schedule),
        **_beyond_the_optimizer(optimization),
        "average": settings_of(average),
        "trainer": {name: getattr(trainer, name) for name in TRAINER}
        | {"precision": str(trainer.precision), "strategy": type(trainer.strategy).__name__},
        "seed": seed,
        "data": {name: data.hparams[name] for name in DATA}
        | {"order": repr(data.order)}
        | {"corpus": [public_name(name) for name in data.corpus], "splits": data.describe_splits()}
        | ({"replay": settings_of(data.hparams["replay"])} if data.replay else {}),
        "metrics": dict(metrics),
        "versions": {"lit-entrodrop": source_version(), "python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
    }


def settings_of(thing: object) -> Any:
    """Return the public settings of an object as plain values, with its class path.

    >>> settings_of(LRSchedule(warmup=2))["init_args"]
    {'warmup': 2, 'decay': 'cosine', 'final': 0.0}
    """
    if thing is None or isinstance(thing, bool | int | float):
        return thing
    if isinstance(thing, str | Path):
        return public_name(str(thing))
    if isinstance(thing, list | tuple):
        return [settings_of(each) for each in thing]
    if isinstance(thing, Mapping):
        return {str(name): settings_of(each) for name, each in thing.items()}
    path = f"{type(thing).__module__}.{type(thing).__qualname__}"
    if not isinstance(thing, DESCRIBED):
        return path
    public = {name: value for name, value in vars(thing).items() if not name.startswith("_")}
    # A flag of every torch module.
    public.pop("training", None)
    return {"class_path": path, "init_args": settings_of(public)}


def public_name(name: str) -> str:
    """Return a name without the folders of this machine, on one line.

    >>> public_name("/home/me/texts.jsonl"), public_name("~/models/mine"), public_name("org/name")
    ('texts.jsonl', 'mine', 'org/name')
    """
    path = PureWindowsPath(name) if PureWindowsPath(name).drive else Path(name)
    is_path = path.is_absolute() or name.startswith(("~", "./", "../", "file:"))
    return one_line(path.name if is_path else name)


def location(folder: Path) -> str:
    """Return a folder as commands on a page name it, without the folders of this machine.

    It is the path from the working folder, and of a folder elsewhere the name alone.

    >>> location(Path("runs/mine")), location(Path.cwd() / "mine"), location(Path("/data/mine"))
    ('runs/mine', 'mine', 'mine')
    """
    here = Path(os.path.abspath(folder))
    below = here.is_relative_to(Path.cwd())
    return public_name(str(here.relative_to(Path.cwd()) if below else folder))


def hub_name(source: str | None) -> str | None:
    """Return the name of a pretrained model if it is on the hub, else None.

    >>> tiny_base = "package:lit_entrodrop/model/tiny_base"
    >>> hub_name("Qwen/Qwen3-0.6B"), hub_name(tiny_base), hub_name("./mine")
    ('Qwen/Qwen3-0.6B', None, None)
    """
    if source is None or source.startswith(PACKAGE_PREFIX):
        return None
    try:
        place = locate(source)
    except ValueError:
        return None
    on_hub = place.name == source and place.gguf_file is None and not Path(source).exists()
    return source if on_hub else None


def _beyond_the_optimizer(optimization: Optimization) -> dict[str, Any]:
    """Return the settings by which groups differ, and the schedule of their weight decay."""
    found = {
        "weight_decay_schedule": settings_of(optimization.weight_decay_schedule),
        "groups": [asdict(rule) for rule in optimization.rules],
        "layer_lr_decay": optimization.layer_lr_decay,
    }
    return {name: value for name, value in found.items() if value not in (None, [], 1)}


def _optimizer(trainer: L.Trainer) -> dict[str, Any] | None:
    if not trainer.optimizers:
        return None
    # DeepSpeed wraps it.
    optimizer = trainer.optimizers[0]
    optimizer = getattr(optimizer, "optimizer", optimizer)
    path = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
    # Some optimizers have counts among their defaults.
    settings = optimizer.defaults.keys() & signature(type(optimizer)).parameters.keys()
    in_use = {
        name: value
        for name, value in optimizer.defaults.items()
        if name in settings and value is not None and value is not False
    }
    return {"class_path": path, "init_args": settings_of(in_use)}
