"""LightningCLI with our model and our data: fit, validate, test, predict and score."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.fabric.plugins.io import CheckpointIO
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from rich.console import Console

from lit_entrodrop.cli.evaluation_table import evaluation_table
from lit_entrodrop.cli.parsing import Parser, load_regularizers
from lit_entrodrop.data import TextDataModule
from lit_entrodrop.runs.checkpoints.io import StreamingCheckpointIO
from lit_entrodrop.runs.checkpoints.reading import read_checkpoint
from lit_entrodrop.runs.layout import find_checkpoint, refuse_used_folder
from lit_entrodrop.training.callbacks import Checkpoints, NaNGuard, PredictionWriter
from lit_entrodrop.training.checks import check_strategy
from lit_entrodrop.training.loggers import loggers
from lit_entrodrop.training.module import LitCausalLM
from lit_entrodrop.training.monitors import Monitors, shows_progress
from lit_entrodrop.training.trainer import Trainer

DESCRIPTION = """Fine-tune a causal LM on little text for many epochs, under EntroDrop and others.

Configs compose: later --config files and flags override earlier ones, and `regularizers+:` blocks
add up. Ready ones, as `--config configs/base.yaml`, are found from any folder. Eight commands
beside those below have a --help of their own: `compare` (arms at matched seeds, and which is
better), `doctor` (checks a config before an expensive run), `export` (checkpoint to a Hugging Face
folder), `plan` (which strategy fits which hardware, and how fast it will be), `quickstart` (plain,
EntroDrop and random dropout on a medical corpus), `regularizers` (which there are, and how each is
set), `report` (a page that explains runs) and `verify-resume` (proves that a run that is killed and
resumed ends as an uninterrupted one)."""


class LitCLI(LightningCLI):
    """Wire model, data and trainer together from YAML files and flags."""

    _ckpt_path: Path | None = None

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the subcommands and the arguments that the command line itself provides."""
        provided = {"model", "datamodule", "weights_only"}
        return {
            "fit": provided | {"train_dataloaders", "val_dataloaders"},
            "validate": provided | {"dataloaders"},
            "test": provided | {"dataloaders"},
            "predict": provided | {"dataloaders", "return_predictions"},
            "score": provided,
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the settings of checkpoints, and derive what must agree."""
        load_regularizers()
        parser.add_class_arguments(Checkpoints, "checkpoints")
        parser.add_class_arguments(Monitors, "monitors")
        parser.link_arguments(
            ("model.lm.tokenizer", "model.lm.pretrained"),
            "data.tokenizer",
            compute_fn=_tokenizer_of,
        )
        parser.link_arguments("data.cache_dir", "model.cache_dir")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "model.seed", compute_fn=int)

    def _parse_ckpt_path(self) -> None:
        # Lightning would let the settings of a checkpoint win over those that the user gives.
        subcommand = self.config.get("subcommand")
        ckpt_path = self.config[subcommand].get("ckpt_path") if subcommand else None
        if ckpt_path is None:
            return
        folder = Path(self.config[subcommand]["trainer"]["default_root_dir"])
        self._ckpt_path = find_checkpoint(ckpt_path, folder, may_be_new=subcommand == "fit")
        if self._ckpt_path is not None:
            read_checkpoint(self._ckpt_path)

    def before_instantiate_classes(self) -> None:
        """Protect a finished run, and keep the config of this one."""
        if self.subcommand == "fit":
            ckpt_path = self._get(self.config, "ckpt_path")
            # Later ranks start when the first may already write.
            if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
                refuse_used_folder(self._run_folder, ckpt_path)
        else:
            self.save_config_callback = None

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Make the trainer; all that a run writes goes into its folder."""
        strategy = self._get(self.config, "trainer")["strategy"]
        # Lightning may refuse it first, in words that lead nowhere.
        check_strategy(str(getattr(strategy, "class_path", strategy)))
        logger = self._get(self.config_init, "trainer").get("logger")
        if self.subcommand != "fit":
            kwargs["logger"] = logger if logger not in (None, True) else False
        else:
            kwargs["logger"] = loggers(logger, self._run_folder)
        callbacks = default_callbacks(self.subcommand, self._run_folder)
        monitors: Monitors = self._get(self.config_init, "monitors")
        has_room = shows_progress(self._get(self.config_init, "trainer"))
        callbacks += monitors.callbacks(self.subcommand, has_room)
        if self.subcommand == "fit" and has_room and monitors.progress_bar is None:
            # Lightning would show one of its own.
            kwargs["enable_progress_bar"] = False
        enabled = self._get(self.config_init, "trainer").get("enable_checkpointing")
        if self.subcommand == "fit" and enabled is not False:
            callbacks.append(self._get(self.config_init, "checkpoints"))
        plugins = self._get(self.config_init, "trainer").get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, StreamingCheckpointIO()]
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": callbacks}
        return super().instantiate_trainer(**kwargs)

    @property
    def _run_folder(self) -> Path:
        return Path(self._get(self.config, "trainer")["default_root_dir"])

    def after_validate(self) -> None:
        """Show what was found."""
        self._show_evaluation()

    def after_test(self) -> None:
        """Show what was found."""
        self._show_evaluation()

    def _show_evaluation(self) -> None:
        if self._get(self.config, "verbose") and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            metrics = {name: float(v) for name, v in self.trainer.callback_metrics.items()}
            Console().print(evaluation_table(metrics))

    def after_fit(self) -> None:
        """Tell where the run is."""
        rank_zero_info(f"run: {self._run_folder}")

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand == "score":
            return kwargs
        if "verbose" in kwargs:
            # The table is ours.
            kwargs["verbose"] = False
        # A checkpoint from elsewhere must not run code.
        return {**kwargs, "ckpt_path": self._ckpt_path, "weights_only": True}


def default_callbacks(subcommand: str | None, folder: Path) -> list[L.Callback]:
    """Return the callbacks that come with a subcommand, beside its checkpoints."""
    if subcommand == "predict":
        return [PredictionWriter(folder)]
    return [NaNGuard()] if subcommand == "fit" else []


def run_lightning(args: Sequence[str] | None = None) -> LitCLI:
    """Run fit, validate, test, predict or score."""
    return LitCLI(
        LitCausalLM,
        TextDataModule,
        trainer_class=Trainer,
        trainer_defaults={"default_root_dir": "runs/default"},
        save_config_callback=SaveConfigCallback,
        save_config_kwargs={"overwrite": True},
        seed_everything_default=0,
        parser_class=Parser,
        parser_kwargs={"prog": "lit-entrodrop", "description": DESCRIPTION},
        args=None if args is None else list(args),
        auto_configure_optimizers=False,
    )


def resolved_config(args: Sequence[str]) -> dict[str, Any]:
    """Return the config that `fit` would use.

    Args:
        args: of `fit`; wrong ones end the program as they do there.
    """
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            run_lightning(["fit", *args, "--print_config"])
    except SystemExit as ended:
        if ended.code:
            raise
    config: dict[str, Any] = yaml.safe_load(printed.getvalue())
    return config


def _tokenizer_of(tokenizer: str | None, pretrained: str | None) -> str:
    source = tokenizer or pretrained
    if source is None:
        raise ValueError("model.lm.tokenizer: expected one beside lm.architecture, got null")
    return source
