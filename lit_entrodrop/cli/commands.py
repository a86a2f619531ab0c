"""Table of the commands of ``lit-entrodrop``.

A new command is a package in ``lit_entrodrop/commands/`` and a row here. Nothing is imported before
its command runs, so that help and errors appear at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name

from lit_entrodrop.cli.messages import did_you_mean

USAGE = """usage: lit-entrodrop COMMAND [options]

Fine-tune causal language models on scarce text for many epochs, under token regularizers.
Settings come from YAML files and flags: later ones override earlier ones, `regularizers+:` appends.
"""
EXAMPLES = """examples:
  lit-entrodrop quickstart
  lit-entrodrop doctor --config configs/base.yaml --data.corpus notes.jsonl
  lit-entrodrop fit --config configs/base.yaml --config configs/regularizers/entrodrop.yaml \\
      --data.corpus notes.jsonl
  lit-entrodrop COMMAND --help

Ready configs, such as configs/base.yaml, are found from any folder."""


@dataclass(frozen=True)
class Command:
    """A command of the program.

    Args:
        name: Name on the command line.
        help: One-line description.
        path: Import path of the function that takes its arguments, ``package.module:function``.
    """

    name: str
    help: str
    path: str

    def resolve(self) -> Callable[[Sequence[str]], object]:
        """Import and return the function that takes the arguments after the command's name."""
        function: Callable[[Sequence[str]], object] = resolve_name(self.path)
        return function


COMMANDS = (
    Command(
        "quickstart",
        "Fine-tune a tiny model three ways on a medical corpus and compare them.",
        "lit_entrodrop.commands.quickstart:main",
    ),
    Command("fit", "Train a model.", "lit_entrodrop.cli.lit_cli:fit"),
    Command(
        "validate",
        "Evaluate a model on the validation split.",
        "lit_entrodrop.cli.lit_cli:validate",
    ),
    Command("test", "Evaluate a model on the test split.", "lit_entrodrop.cli.lit_cli:test"),
    Command(
        "predict",
        "Write loss and entropy of each token of a split to Parquet files.",
        "lit_entrodrop.cli.lit_cli:predict",
    ),
    Command(
        "score",
        "Write token entropies of a split to a file that `fit` can use as reference.",
        "lit_entrodrop.cli.lit_cli:score",
    ),
    Command(
        "compare",
        "Train arms at matched seeds and report which is better.",
        "lit_entrodrop.commands.compare.command:main",
    ),
    Command(
        "doctor",
        "Check a config, its data and its regularizers before an expensive run.",
        "lit_entrodrop.commands.doctor.command:main",
    ),
    Command(
        "plan",
        "Estimate which strategy fits which hardware, and how fast it trains.",
        "lit_entrodrop.commands.plan.command:main",
    ),
    Command(
        "regularizers",
        "List the regularizers, or explain one.",
        "lit_entrodrop.commands.regularizers.command:main",
    ),
    Command(
        "report",
        "Write an HTML page that explains one or several runs.",
        "lit_entrodrop.commands.report.command:main",
    ),
    Command(
        "export",
        "Convert a checkpoint to a Hugging Face model folder.",
        "lit_entrodrop.commands.export.command:main",
    ),
    Command(
        "verify-resume",
        "Check that a killed and resumed run ends as an uninterrupted one.",
        "lit_entrodrop.commands.verify_resume.command:main",
    ),
)
BY_NAME = {command.name: command for command in COMMANDS}


def find_command(name: str) -> Command:
    """Return the command of a name.

    Raises:
        ValueError: If there is no such command.

    >>> find_command("fit").help
    'Train a model.'
    """
    if name in BY_NAME:
        return BY_NAME[name]
    raise ValueError(
        f"expected a command of {', '.join(sorted(BY_NAME))}, got {name}: "
        f"{did_you_mean(name, BY_NAME, 'see lit-entrodrop --help')}"
    )


def overview() -> str:
    r"""Return the text of ``lit-entrodrop --help``.

    >>> "\n  fit            Train a model.\n" in overview()
    True
    """
    rows = "\n".join(f"  {command.name:<14} {command.help}" for command in COMMANDS)
    return f"{USAGE}\ncommands:\n{rows}\n\n{EXAMPLES}"
