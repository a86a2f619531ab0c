"""`lit-entrodrop diagnose`: diagnose overfitting from the log of any trainer."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from lit_entrodrop.cli.terminal import command_parser, console_of
from lit_entrodrop.commands.diagnose.curves import DiagnosedLog, read_curves
from lit_entrodrop.commands.diagnose.findings import conclude
from lit_entrodrop.commands.diagnose.logs import FoundLog, find_logs
from lit_entrodrop.evaluation.conclusion import Conclusion
from lit_entrodrop.runtime.shown_text import one_line

WIDTH = 100  # characters, if the output is not a terminal
DESCRIPTION = """Diagnose from the log of any trainer whether a model overfits, and since when.

Reads trainer_state.json (Transformers, TRL, Axolotl, Unsloth), trainer_log.jsonl (LLaMA-Factory),
metrics.csv (Lightning's CSVLogger) and TensorBoard's event files, or folders with them; of several
checkpoints in a folder, it reads the last.

Reports the best evaluation; the rise of the validation loss since then, tested against the scatter
of the evaluations; the gap to the training loss; and stair steps of the training loss between
epochs, which show memorization. A log has no losses of documents, so the confidence is lower than
that of `report`, which reads runs of `fit`."""
EPILOG = """examples:
  lit-entrodrop diagnose output/checkpoint-500/trainer_state.json
  lit-entrodrop diagnose output/ --output diagnosis.html
  lit-entrodrop diagnose lightning_logs/version_0 lightning_logs/version_1
  lit-entrodrop diagnose tb/run --train Loss/fit --validation Loss/new --steps_per_epoch 250"""


def main(args: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: If there is no log or no loss.
        OSError: If no log can be read.
    """
    parser = command_parser("diagnose", DESCRIPTION, EPILOG)
    add = parser.add_argument
    add(
        "logs", nargs="+", type=Path, metavar="FILE_OR_FOLDER", help="A log, or a folder with logs."
    )
    add("--output", type=Path, metavar="FILE", help="Path to an HTML page to write, with curves.")
    add("--train", metavar="NAME", help="Logged name of the training loss (default: guessed).")
    add(
        "--validation",
        metavar="NAME",
        help="Logged name of the validation loss to judge first (default: guessed).",
    )
    add(
        "--steps_per_epoch",
        type=float,
        metavar="N",
        help="Optimizer steps of an epoch, for logs without epochs.",
    )
    given = parser.parse_args(args)
    if given.steps_per_epoch is not None and not 0 < given.steps_per_epoch < float("inf"):
        parser.error(f"--steps_per_epoch: expected a number above 0, got {given.steps_per_epoch}")
    results = [_read(log, given) for path in given.logs for log in find_logs(path)]
    found = [each for each in results if isinstance(each, DiagnosedLog)]
    problems = [each for each in results if isinstance(each, Exception)]
    if not found:
        raise problems[0]
    conclusions = [conclude(each) for each in found]
    console = console_of(WIDTH)
    show = _explain if len(found) == 1 else _summarize
    for each, conclusion in zip(found, conclusions, strict=True):
        show(console, each, conclusion)
    for problem in problems:
        console.print(_text(f"Left out: {problem}"), soft_wrap=True)
    if given.output is not None:
        # Drawing takes seconds to import.
        from lit_entrodrop.commands.diagnose.page import write_page

        write_page(given.output, found, conclusions)
        console.print(f"Page: {given.output}", soft_wrap=True, markup=False)


def _read(read: FoundLog, given: Namespace) -> DiagnosedLog | ValueError | OSError:
    try:
        return read_curves(read(), given.train, given.validation, given.steps_per_epoch)
    except (ValueError, OSError) as error:
        return error


def _explain(console: Console, found: DiagnosedLog, conclusion: Conclusion) -> None:
    _print(console, subject(found))
    _print(console, f"\n{conclusion.headline}.", style="bold")
    for paragraph in conclusion.summary.splitlines():
        _print(console, f"\n{paragraph}")
    for note in found.notes:
        _print(console, f"Note: {note}")
    if conclusion.next_steps:
        _print(console, "\nWhat to do next")
    for number, step in enumerate(conclusion.next_steps, 1):
        _print(console, f"{number}. {step.text}", indent=2)
        if step.command:
            _print(console, step.command, indent=5)


def _summarize(console: Console, found: DiagnosedLog, conclusion: Conclusion) -> None:
    line = f"{found.log.name}: {conclusion.headline}.{numbers(found)}"
    console.print(_text(line), soft_wrap=True)
    for note in found.notes:
        _print(console, f"Note: {note}", indent=2)


def subject(found: DiagnosedLog) -> str:
    """Describe what was read: file, trainer and numbers of values."""
    parts = [found.log.name, found.log.trainer.name]
    parts += [f"{len(each)} values of {each.name}" for each in found.validations[:2]]
    parts += [f"{len(found.training)} of {found.training.name}"] if len(found.training) else []
    return ", ".join(parts)


def numbers(found: DiagnosedLog) -> str:
    """Return the lowest and the last validation loss for a line; empty if there is none."""
    if not found.validations:
        return ""
    curve, best = found.validations[0], found.verdicts[0].best
    return (
        f" Lowest {curve.losses[best]:.3f} at {curve.short_place(best)}, last "
        f"{curve.losses[-1]:.3f} at {curve.short_place(-1)}."
    )


def _print(console: Console, text: str, indent: int = 0, style: str = "") -> None:
    if text.startswith("\n"):
        console.print()
    console.print(Padding(_text(text, style), (0, 0, 0, indent), expand=False))


def _text(text: str, style: str = "") -> Text:
    # A name in a log may contain control characters.
    return Text(one_line(text.replace("`", "")), style)
