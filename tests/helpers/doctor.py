"""Tiny subjects for the doctor, made of the real parts without the command line around them."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

from lit_entrodrop.cli.lit_cli import resolved_config
from lit_entrodrop.commands.doctor.check import Check, run_check
from lit_entrodrop.commands.doctor.model_probe import Live
from lit_entrodrop.commands.doctor.subject import Examiner, Subject
from regularizers import Regularizer
from tests.helpers.tiny import Tiny


@cache
def _config(words: tuple[str, ...]) -> dict[str, Any]:
    return resolved_config(words)


def make_subject(
    tiny: Tiny,
    *regularizers: Regularizer,
    lm: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    trainer: dict[str, Any] | None = None,
    read: bool = True,
    **changes: Any,
) -> Subject:
    """Make a subject of the tiny config with some settings changed, and read its text."""
    config = deepcopy(_config(tuple(tiny.config())))
    config["model"]["lm"].update(lm or {})
    config["data"].update(data or {})
    config["trainer"].update({"default_root_dir": str(tiny.folder / "run"), **(trainer or {})})
    for path, value in changes.items():
        section, _, name = path.partition("__")
        config[section].update({name: value}) if name else config.update({section: value})
    made = Subject(
        config,
        Examiner(
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


def examined(
    subject: Subject,
    *checks: Callable[[Live], Check],
    prepare: Callable[[Live], None] = lambda _: None,
) -> list[Check]:
    """Run checks of a live model, which may be prepared for them."""
    found: list[Check] = []

    def examine() -> None:
        live = Live(subject)
        prepare(live)
        found.extend(run_check(check, live) for check in checks)

    subject.examining(examine)
    return found
