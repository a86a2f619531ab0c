"""The run that a config describes: trainer, module and data, built as `fit` builds them."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.accelerators import AcceleratorRegistry

from lit_entrodrop.cli.lit_cli import LitCLI
from lit_entrodrop.commands.doctor import near_duplicates
from lit_entrodrop.commands.doctor.document_text import sample
from lit_entrodrop.commands.plan.config_conversion import data_parallel_size, workload_of
from lit_entrodrop.commands.plan.workload import Workload
from lit_entrodrop.data import TextDataModule
from lit_entrodrop.data.adjustments import BEYOND_LIMIT
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.data.preparing.splitting import read_and_split
from lit_entrodrop.data.preparing.stored_documents import StoredDocuments
from lit_entrodrop.data.reading_options import reading_options
from lit_entrodrop.model.sizes import Sizes, sizes_of
from lit_entrodrop.runtime.steps import (
    batches_per_epoch,
    epochs_begun,
    steps_per_epoch,
    total_steps,
)
from lit_entrodrop.training.module import LitCausalLM
from lit_entrodrop.training.trainer import Trainer

# Trainer settings that have no part in a step, might write files, or need other devices.
PROBING_TRAINER: dict[str, Any] = {
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "logger": False,
    "callbacks": None,
    "plugins": None,
    "profiler": None,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "fast_dev_run": False,
}


@dataclass(eq=False)
class ConfiguredRun:
    """Config of a run with all defaults, and the parts that it describes.

    The trainer uses one device and no run folder. :meth:`read_data` reads the text, and
    :meth:`with_model` builds the model.
    """

    config: dict[str, Any]
    trainer: Trainer
    module: LitCausalLM
    data: TextDataModule

    def read_data(self) -> None:
        """Read, split, tokenize and pack the text as `fit` does."""
        self.data.prepare_data()
        self.data.setup()

    def with_model(self, probe: Callable[[], None]) -> None:
        """Build the model and its optimizer as `fit` does, then call a function."""
        self.trainer.stage = probe
        self.trainer.fit(self.module, datamodule=self.data)

    def blocks(self, split: str) -> PackedBlocks | None:
        """Return the packed blocks of a split, or None if the config does not have it."""
        return self.data.blocks(split) if self.data.num_blocks(split) else None

    @property
    def train_blocks(self) -> PackedBlocks:
        """Packed blocks of the training split."""
        return self.data.blocks("train")

    @cached_property
    def split_documents(self) -> dict[str, StoredDocuments]:
        """Documents of each split, without the limit of ``data.max_train_tokens``."""
        settings = self.config["data"]
        return read_and_split(
            self.data.corpus,
            {name: settings[name] for name in ("validation", "test", "holdout")}
            | (settings["evaluate"] or {}),
            reading_options(settings),
            settings["split_seed"],
            Path(settings["cache_dir"]).expanduser(),
        )

    @cached_property
    def documents(self) -> dict[str, StoredDocuments]:
        """Documents of each split; for training, those within ``data.max_train_tokens``."""
        train = self.split_documents["train"]
        beyond = self.data.splits["train"].adjustments.get(BEYOND_LIMIT, 0)
        return {**self.split_documents, "train": train[: len(train) - beyond]}

    @cached_property
    def train_index(self) -> near_duplicates.NearDuplicateIndex:
        """Near-duplicate index of the training documents, or of a sample of them."""
        documents = sample(self.documents["train"], near_duplicates.COMPARED)
        return near_duplicates.NearDuplicateIndex(documents, "Hashing train")

    @cached_property
    def workload(self) -> Workload:
        """Workload of the run, as `plan` estimates it."""
        return workload_of(self.config)

    @cached_property
    def sizes(self) -> Sizes:
        """Parameter counts of the model, from the meta device."""
        return sizes_of(self.workload.build_on_meta())

    @cached_property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch, on the devices of the config."""
        return self._steps_of(self.data.readings_per_epoch(self._count_epochs))

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return total_steps(self.steps_per_epoch, *self._bounds)

    @property
    def _bounds(self) -> tuple[int | None, int | None]:
        return self.config["trainer"]["max_epochs"], self.config["trainer"]["max_steps"]

    def _count_epochs(self, readings: int) -> int:
        return epochs_begun(self._steps_of(readings), *self._bounds)

    def _steps_of(self, readings: int) -> int:
        """Return the optimizer steps of an epoch that reads some blocks."""
        trainer, batch_size = self.config["trainer"], self.config["data"]["batch_size"]
        batches = batches_per_epoch(readings, data_parallel_size(trainer), batch_size)
        accumulate, limit = trainer["accumulate_grad_batches"], trainer["limit_train_batches"]
        return steps_per_epoch(batches, accumulate, limit)


@contextmanager
def configured_run(config: dict[str, Any]) -> Iterator[ConfiguredRun]:
    """Create the parts of a config as the command line does, in a temporary run folder."""
    with tempfile.TemporaryDirectory(prefix="lit-entrodrop-doctor-") as folder:
        cli = LitCLI(
            save_config_callback=None,
            args=probing_config(config, folder),
            run=False,
        )
        assert isinstance(cli.trainer, Trainer), "LitCLI makes it"
        yield ConfiguredRun(config, cli.trainer, cli.model, cli.datamodule)


def probing_config(config: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return a copy of a config for one device of this machine, with another run folder."""
    config = copy.deepcopy(config)
    config.pop("ckpt_path", None)
    trainer, lm = config["trainer"], config["model"]["lm"]
    trainer.update(PROBING_TRAINER, default_root_dir=folder)
    if not is_available(trainer["accelerator"]):
        trainer["accelerator"] = "cpu"
        # Not supported on a CPU.
        if trainer["precision"] == "16-mixed":
            trainer["precision"] = "32-true"
        lm.update(head="auto", attention="sdpa")
    # Compiling would take longer than all checks together.
    lm["compile"] = False
    return config


def is_available(accelerator: str) -> bool:
    """Return whether this machine has an accelerator.

    >>> is_available("auto"), is_available("cpu")
    (True, True)
    """
    if accelerator == "gpu":
        return torch.cuda.is_available() or torch.backends.mps.is_available()
    if accelerator not in AcceleratorRegistry:
        return True
    return bool(AcceleratorRegistry.get(accelerator).is_available())
