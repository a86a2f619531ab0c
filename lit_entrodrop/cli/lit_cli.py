"""`fit`, `validate`, `test`, `predict` and `score`: LightningCLI with this model and this data."""

import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from shlex import quote
from typing import Any

import lightning as L
from lightning.fabric.plugins.io import CheckpointIO
from lightning.pytorch.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    SaveConfigCallback,
)
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console

from lit_entrodrop.cli.commands import COMMANDS
from lit_entrodrop.cli.evaluation_table import evaluation_table
from lit_entrodrop.cli.parsing import Parser, load_regularizers
from lit_entrodrop.data import TextDataModule
from lit_entrodrop.model.building import build_hf_config
from lit_entrodrop.runs.checkpoints.integrity import verify_checkpoint
from lit_entrodrop.runs.checkpoints.io import StreamingCheckpointIO
from lit_entrodrop.runs.checkpoints.reading import read_checkpoint
from lit_entrodrop.runs.layout import (
    CONFIG,
    find_checkpoint,
    holds_run,
    lock_run,
    refuse_used_folder,
)
from lit_entrodrop.runs.writing import write_whole
from lit_entrodrop.runtime.lightning_compat import parse_counts_as_integers
from lit_entrodrop.runtime.shown_text import one_line
from lit_entrodrop.training.callbacks import Checkpoints, NaNGuard, PredictionWriter, StayStopped
from lit_entrodrop.training.loggers import loggers, remove_logs
from lit_entrodrop.training.module import LitCausalLM
from lit_entrodrop.training.monitors import DEFAULTS as MONITORS
from lit_entrodrop.training.monitors import Monitors, shows_progress
from lit_entrodrop.training.optim import check_can_step
from lit_entrodrop.training.preflight.config import check_callbacks
from lit_entrodrop.training.preflight.model import check_context
from lit_entrodrop.training.preflight.optimizer import check_suits
from lit_entrodrop.training.preflight.ranges import check_ranges
from lit_entrodrop.training.strategies import check_strategy
from lit_entrodrop.training.trainer import Trainer

# By subcommand: arguments of the trainer's method that are not read from the command line.
PROVIDED = {
    "fit": {"model", "datamodule", "weights_only", "train_dataloaders", "val_dataloaders"},
    "validate": {"model", "datamodule", "weights_only", "dataloaders"},
    "test": {"model", "datamodule", "weights_only", "dataloaders"},
    "predict": {"model", "datamodule", "weights_only", "dataloaders", "return_predictions"},
    "score": {"model", "datamodule", "weights_only"},
}


class SaveConfig(SaveConfigCallback):
    """Write ``config.yaml`` to the run folder, atomically.

    It omits ``ckpt_path``: otherwise, a command that reads the file of a resumed run would load the
    checkpoint from which the run was resumed.
    """

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write the file."""
        settings = self.config.clone()
        settings.pop("ckpt_path", None)
        config = self.parser.dump(settings, skip_none=False)
        write_whole(Path(trainer.default_root_dir) / CONFIG, config)


class LitCLI(LightningCLI):
    """Build model, data and trainer from YAML files and flags, and run a subcommand.

    Args:
        only: Subcommand to build a parser for; None builds those of all, which takes longer.
        kwargs: Other arguments of ``LightningCLI``.
    """

    _ckpt_path: Path | None = None

    def __init__(self, only: str | None = None, **kwargs: Any) -> None:
        self._only = only
        descriptions = {name: {"description": COMMANDS[name]} for name in self.subcommands()}
        defaults: dict[str, Any] = {
            "trainer_class": Trainer,
            "trainer_defaults": {"default_root_dir": "runs/default"},
            "save_config_callback": SaveConfig,
            "save_config_kwargs": {"save_to_log_dir": False},
            "seed_everything_default": 0,
            "parser_class": Parser,
            "parser_kwargs": {"prog": "lit-entrodrop", **descriptions},
            "auto_configure_optimizers": False,
        }
        parse_counts_as_integers()
        with ExitStack() as self._locks:
            super().__init__(LitCausalLM, TextDataModule, **{**defaults, **kwargs})

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the subcommands and the arguments that are not read from the command line."""
        return {self._only: PROVIDED[self._only]} if self._only else PROVIDED

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add settings of checkpoints and monitors, and link settings that must be equal."""
        load_regularizers()
        parser.add_class_arguments(Checkpoints, "checkpoints")
        parser.add_class_arguments(Monitors, "monitors")
        callbacks = "lit_entrodrop.training.callbacks"
        for name, kind in MONITORS.items():
            parser.set_defaults(
                {f"monitors.{name}": {"class_path": f"{callbacks}.{kind.__name__}"}}
            )
        parser.link_arguments(
            ("model.lm.tokenizer", "model.lm.pretrained"),
            "data.tokenizer",
            compute_fn=_tokenizer_of,
        )
        parser.link_arguments("model.lm.add_tokens", "data.add_tokens")
        parser.link_arguments("data.cache_dir", "model.cache_dir")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "model.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the command line, and check the ranges of settings."""
        super().parse_arguments(parser, args)
        check_ranges(self.config.get(str(self.config.get("subcommand")), self.config).get)

    def _parse_ckpt_path(self) -> None:
        # Lightning would let settings in a checkpoint override those that the user gives.
        subcommand = self.config.get("subcommand")
        ckpt_path = self.config[subcommand].get("ckpt_path") if subcommand else None
        if ckpt_path is None:
            return
        folder = Path(self.config[subcommand]["trainer"]["default_root_dir"])
        self._ckpt_path = find_checkpoint(ckpt_path, folder, may_be_new=subcommand == "fit")
        if self._ckpt_path is not None:
            read_checkpoint(self._ckpt_path)
            # Other ranks have the same files.
            if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
                verify_checkpoint(self._ckpt_path)

    def before_instantiate_classes(self) -> None:
        """Lock the run folder of `fit`, and refuse that of another run; others save no config."""
        if self.subcommand == "fit":
            ckpt_path = self._get(self.config, "ckpt_path")
            # When later ranks start, the first one may already have written files.
            if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
                self._locks.enter_context(lock_run(self._run_folder))
                refuse_used_folder(self._run_folder, ckpt_path)
                if not holds_run(self._run_folder):
                    remove_logs(self._run_folder)
        else:
            self.save_config_callback = None

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build the trainer; all files of a run go into its folder."""
        strategy = self._get(self.config, "trainer")["strategy"]
        # Otherwise Lightning may refuse it first, without a remedy.
        check_strategy(str(getattr(strategy, "class_path", strategy)))
        settings = self._get(self.config_init, "trainer")
        logger = settings.get("logger")
        if self.subcommand != "fit":
            kwargs["logger"] = logger if logger not in (None, True) else False
        else:
            kwargs["logger"] = loggers(logger, self._run_folder)
        callbacks = default_callbacks(self.subcommand, self._run_folder)
        monitors: Monitors = self._get(self.config_init, "monitors")
        has_room = shows_progress(settings)
        callbacks += monitors.callbacks(self.subcommand, has_room)
        if has_room and monitors.progress_bar is None:
            # Otherwise Lightning adds its own.
            kwargs["enable_progress_bar"] = False
        if self.subcommand == "fit" and settings.get("enable_checkpointing") is not False:
            callbacks.append(self._get(self.config_init, "checkpoints"))
        plugins = settings.get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, StreamingCheckpointIO()]
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": callbacks}
        try:
            return super().instantiate_trainer(**kwargs)
        except (TypeError, ImportError) as error:  # by which Lightning refuses some values
            raise ValueError(f"trainer: {error}") from error

    @property
    def _run_folder(self) -> Path:
        return Path(self._get(self.config, "trainer")["default_root_dir"])

    def before_fit(self) -> None:
        """Check the optimizer and the configuration of the model, before the text is read."""
        check_callbacks(self.trainer)
        optimization = self.model.optimization
        optimizer = check_can_step(optimization.make)
        if self.subcommand == "fit":
            check_suits(optimizer, self.trainer, optimization.lr_schedule)
        check_context(build_hf_config(self.model.lm), self.datamodule.block_size)
        rank_zero_info(f"model: {one_line(self.model.lm.describe())}")

    before_validate = before_test = before_predict = before_score = before_fit

    def after_validate(self) -> None:
        """Print the metrics as a table."""
        if self._get(self.config, "verbose") and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            metrics = {name: float(v) for name, v in self.trainer.callback_metrics.items()}
            Console().print(evaluation_table(metrics))

    after_test = after_validate

    def after_fit(self) -> None:
        """Print the folder of the run, and the commands that explain and export it."""
        folder = self._run_folder
        rank_zero_info(f"run: {folder}")
        best = folder / "checkpoints" / "best.ckpt"
        if best.exists():
            rank_zero_info(
                f"next: lit-entrodrop report --runs {quote(str(folder))}\n"
                f"      lit-entrodrop export --ckpt_path {quote(str(best))} --output my_model"
            )

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand == "score":
            return kwargs
        if "verbose" in kwargs:
            # `after_validate` prints the table.
            kwargs["verbose"] = False
        # Loading a checkpoint must not run code in it.
        return {**kwargs, "ckpt_path": self._ckpt_path, "weights_only": True}


def default_callbacks(subcommand: str | None, folder: Path) -> list[L.Callback]:
    """Return the callbacks that a subcommand always has, apart from its checkpoints."""
    if subcommand == "predict":
        return [PredictionWriter(folder)]
    return [NaNGuard(), StayStopped()] if subcommand == "fit" else []


def run_lightning(args: list[str]) -> LitCLI:
    """Run `fit`, `validate`, `test`, `predict` or `score` from a command line."""
    try:
        return LitCLI(only=args[0] if args[0] in PROVIDED else None, args=args)
    except SIGTERMException as ended:
        sys.exit(ended.code or 128 + signal.SIGTERM)
    except SystemExit as ended:
        # Lightning ends with status 1 after Ctrl-C.
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from ended
        raise


def _tokenizer_of(tokenizer: str | None, pretrained: str | None) -> str:
    source = tokenizer or pretrained
    if source is None:
        raise ValueError(
            "model.lm.tokenizer: expected a tokenizer in addition to lm.architecture, got null: "
            "set it to a folder or a model of the hub"
        )
    return source
