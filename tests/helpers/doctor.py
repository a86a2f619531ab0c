"""Tiny runs for `doctor`, made of the real parts without the command line."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.commands.doctor.check import CheckResult, passed, run_check
from lit_entrodrop.commands.doctor.configured_run import ConfiguredRun
from lit_entrodrop.commands.doctor.model_probe import ModelProbe
from lit_entrodrop.commands.doctor.regularizer_probe import RegularizerProbe
from lit_entrodrop.training.trainer import Trainer
from regularizers import Regularizer
from tests.helpers.tiny import Tiny


@cache
def _config(tokenizer: Path) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        return resolved_config(Tiny(Path(folder), tokenizer, Path(folder)).config())


def make_run(
    tiny: Tiny,
    *regularizers: Regularizer,
    lm: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    trainer: dict[str, Any] | None = None,
    read: bool = True,
    **changes: Any,
) -> ConfiguredRun:
    """Make a run of the tiny config with some settings changed, and read its text."""
    config = deepcopy(_config(tiny.tokenizer))
    cache_dir = str(tiny.folder / "cache")
    config["model"]["lm"].update(lm or {})
    config["model"]["cache_dir"] = cache_dir
    config["data"].update({"corpus": str(tiny.corpus), "cache_dir": cache_dir, **(data or {})})
    config["trainer"].update({"default_root_dir": str(tiny.folder / "run"), **(trainer or {})})
    for path, value in changes.items():
        section, _, name = path.partition("__")
        config[section].update({name: value}) if name else config.update({section: value})
    made = ConfiguredRun(
        config,
        Trainer(
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            max_epochs=2,
            default_root_dir=tiny.folder / "nowhere",
        ),
        tiny.module(*regularizers, lm=lm or {}),
        tiny.data(**(data or {})),
    )
    if read:
        made.read_data()
    return made


def check_model(
    run: ConfiguredRun,
    *checks: Callable[[ModelProbe], CheckResult],
    prepare: Callable[[ModelProbe], None] = lambda _: None,
) -> list[CheckResult]:
    """Build the model of a run, and run checks of it.

    Args:
        run: Run whose text has been read.
        checks: Checks to run.
        prepare: Function that may break the model before the checks.
    """
    found: list[CheckResult] = []

    def run_checks() -> None:
        probe = ModelProbe(run)
        prepare(probe)
        found.extend(run_check(check, probe) for check in checks)

    run.with_model(run_checks)
    return found


def check_regularizers(
    run: ConfiguredRun,
    *checks: Callable[[RegularizerProbe], CheckResult],
    prepare: Callable[[ModelProbe], None] = lambda _: None,
) -> list[CheckResult]:
    """Build the model of a run, and run checks of its regularizers; see `check_model`."""
    found: list[CheckResult] = []

    def run_checks(model: ModelProbe) -> CheckResult:
        probe = RegularizerProbe(model)
        found.extend(run_check(check, probe) for check in checks)
        return passed("")

    check_model(run, run_checks, prepare=prepare)
    return found
