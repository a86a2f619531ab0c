"""What is examined: the config, the text and the model, built as `fit` builds them."""

import copy
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch.accelerators import AcceleratorRegistry

from lit_entrodrop.cli.lit_cli import LitCLI
from lit_entrodrop.cli.parsing import Parser
from lit_entrodrop.commands.doctor import similarity
from lit_entrodrop.commands.doctor.texts import sample
from lit_entrodrop.commands.plan.job import Job
from lit_entrodrop.commands.plan.settings import data_parallel_size, job_of
from lit_entrodrop.data import TextDataModule
from lit_entrodrop.data.blocks import PackedBlocks
from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.splitting import read_and_split
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.sizes import Sizes, sizes_of
from lit_entrodrop.training.module import LitCausalLM
from lit_entrodrop.training.trainer import Trainer

# What of the trainer has no part in a step, might write, or would take other machines.
EXAMINED_TRAINER: dict[str, Any] = {
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


class Examiner(Trainer):
    """A trainer that sets up a run and then lets it be examined in place of training.

    Attributes:
        examine: what is done once model, optimizer, precision and data are as in `fit`.
        at_step: the optimizer step at which regularizers are to find themselves.
    """

    examine: Callable[[], None] | None = None
    at_step = 0

    @property
    def global_step(self) -> int:
        """The optimizer step at which the run is examined."""
        return self.at_step

    def _run_stage(self) -> None:
        assert self.examine is not None, "examining() sets it"
        self.examine()


@dataclass(eq=False)
class Subject:
    """A config and what it describes.

    Args:
        config: of `fit`, with all defaults.
        trainer: of one device and without a folder, otherwise as configured.
        module: the LightningModule; its model is built by :meth:`examining`.
        data: the data module; its text is read by :meth:`read_data`.
    """

    config: dict[str, Any]
    trainer: Examiner
    module: LitCausalLM
    data: TextDataModule

    def read_data(self) -> None:
        """Read, split, tokenise and pack the text, as `fit` would."""
        self.data.prepare_data()
        self.data.setup()

    def examining(self, examine: Callable[[], None]) -> None:
        """Build the model and its optimizer as `fit` does, and call a function in place of it."""
        self.trainer.examine = examine
        self.trainer.fit(self.module, datamodule=self.data)

    def blocks(self, split: str) -> PackedBlocks | None:
        """Return the packed blocks of a split; None if it was not asked for."""
        return self.data.blocks(split) if self.data.num_blocks(split) else None

    @cached_property
    def dealt(self) -> dict[str, list[Document]]:
        """The documents of each split."""
        settings = self.config["data"]
        corpus = settings["corpus"]
        return read_and_split(
            [corpus] if isinstance(corpus, str) else corpus,
            {name: settings[name] for name in ("validation", "test", "holdout")},
            settings["text_column"],
            settings["split_seed"],
        )

    @cached_property
    def documents(self) -> dict[str, list[Document]]:
        """The documents of each split; of training, those within ``data.max_train_tokens``."""
        if self.config["data"]["max_train_tokens"] is None:
            return self.dealt
        blocks, end = self.blocks("train"), self.data.tokenizer.eos_token_id
        assert blocks is not None, "there is always something to train on"
        # EOS ends each document, and no other chunk.
        return {**self.dealt, "train": self.dealt["train"][: count_ends(blocks, end)]}

    @cached_property
    def train_index(self) -> similarity.Index:
        """The training documents, or a sample of them, by what is nearly equal to them."""
        return similarity.Index(
            sample(self.documents["train"], similarity.COMPARED), "Hashing train"
        )

    @cached_property
    def job(self) -> Job:
        """What is trained, as `plan` sees it."""
        return job_of(self.config)

    @cached_property
    def sizes(self) -> Sizes:
        """Numbers of parameters, counted without weights."""
        return sizes_of(build_on_meta(self.job.lm))

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch on the devices of the config."""
        trainer = self.config["trainer"]
        return steps_per_epoch(
            self.data.num_blocks("train"),
            data_parallel_size(trainer),
            self.config["data"]["batch_size"],
            trainer["accumulate_grad_batches"],
            trainer["limit_train_batches"],
        )

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        trainer = self.config["trainer"]
        bounds: list[int] = []
        if (epochs := trainer["max_epochs"]) is not None and epochs > 0:
            bounds.append(epochs * self.steps_per_epoch)
        if (steps := trainer["max_steps"]) is not None and steps > 0:
            bounds.append(steps)
        if not bounds:
            raise ValueError(
                "trainer: expected max_epochs >= 1 or max_steps >= 1, so that curricula have an "
                f"end, got max_epochs={epochs}, max_steps={steps}: set one of them"
            )
        return min(bounds)


def count_ends(blocks: PackedBlocks, end: int) -> int:
    """Return how many chunks end with a token."""
    return int((blocks.tokens[blocks.chunk_starts[1:] - 1] == end).sum())


def steps_per_epoch(
    blocks: int, replicas: int, batch_size: int, accumulate: int, limit: float | None = None
) -> int:
    """Return the optimizer steps of an epoch.

    Args:
        blocks: of the training split.
        replicas: micro-batches that are computed at once.
        batch_size: blocks of a micro-batch.
        accumulate: micro-batches of a step.
        limit: ``trainer.limit_train_batches``: a share as float, a number as int.

    >>> steps_per_epoch(100, replicas=2, batch_size=8, accumulate=2)
    4
    """
    batches = math.ceil(math.ceil(blocks / replicas) / batch_size)
    if isinstance(limit, float):
        batches = int(batches * limit)
    elif limit is not None:
        batches = min(batches, int(limit))
    return math.ceil(batches / accumulate)


@contextmanager
def subject_of(config: dict[str, Any]) -> Iterator[Subject]:
    """Make trainer, module and data of a config, as the command line does, without a run folder.

    Args:
        config: of `fit`, with all defaults.

    Raises:
        ValueError: if they cannot be made.
    """
    with tempfile.TemporaryDirectory(prefix="lit-entrodrop-doctor-") as folder:
        cli = LitCLI(
            LitCausalLM,
            TextDataModule,
            trainer_class=Examiner,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=Parser,
            args=examined_config(config, folder),
            auto_configure_optimizers=False,
            run=False,
        )
        assert isinstance(cli.trainer, Examiner), "it was asked for"
        yield Subject(config, cli.trainer, cli.model, cli.datamodule)


def examined_config(config: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return the config of what is examined: one device, and nothing that might write.

    Args:
        config: of `fit`, with all defaults; it is not changed.
        folder: in place of the run's.
    """
    config = copy.deepcopy(config)
    config.pop("ckpt_path", None)
    trainer, lm = config["trainer"], config["model"]["lm"]
    trainer.update(EXAMINED_TRAINER, default_root_dir=folder)
    if not is_here(trainer["accelerator"]):
        trainer["accelerator"] = "cpu"
        # What a CPU cannot do.
        if trainer["precision"] == "16-mixed":
            trainer["precision"] = "32-true"
        lm.update(head="auto", attention="sdpa")
    # It would take longer than all else.
    lm["compile"] = False
    return config


def is_here(accelerator: str) -> bool:
    """Tell whether this machine has an accelerator.

    >>> is_here("auto"), is_here("cpu")
    (True, True)
    """
    if accelerator == "gpu":
        return torch.cuda.is_available() or torch.backends.mps.is_available()
    if accelerator not in AcceleratorRegistry:
        return True
    return bool(AcceleratorRegistry.get(accelerator).is_available())
