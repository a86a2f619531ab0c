"""Table of the commands of ``lit-entrodrop``.

A new command is a row here and a package in ``lit_entrodrop/commands/``, whose ``command.main``
takes the arguments. Nothing is imported before its command runs, so that help and errors appear at
once.
"""

from lit_entrodrop.runtime.spelling import did_you_mean

USAGE = """usage: lit-entrodrop COMMAND [options]

Fine-tune causal language models on scarce text for many epochs, under token regularizers.
Settings come from YAML files and flags: later ones override earlier ones, `regularizers+:` appends.
"""
EXAMPLES = """examples:
  lit-entrodrop quickstart
  lit-entrodrop doctor --config configs/base.yaml --config configs/model/tiny_base.yaml \\
      --data.corpus notes.jsonl
  lit-entrodrop fit --config configs/base.yaml --config configs/model/tiny_base.yaml \\
      --config configs/recipes/scarce.yaml --data.corpus notes.jsonl \\
      --trainer.default_root_dir runs/mine
  lit-entrodrop report --runs runs/mine
  lit-entrodrop export --ckpt_path runs/mine/checkpoints/best.ckpt --output my_model
  lit-entrodrop COMMAND --help

Bundled configs, such as configs/base.yaml, are found from any folder; `configs` lists them."""
COMMANDS = {
    "quickstart": "Fine-tune a tiny model three ways on a medical corpus and compare them.",
    "fit": "Train a model.",
    "validate": "Evaluate a model on the validation split.",
    "test": "Evaluate a model on the test split.",
    "predict": "Write loss and entropy of each token of a split to Parquet files.",
    "score": "Write token entropies of a split to a file that `fit` can use as reference.",
    "compare": "Train arms at matched seeds and report which is better.",
    "tune": "Search for the best settings and methods, and test them against plain.",
    "preview": "Show the tokens of a run, which count, and what regularizers do to them.",
    "doctor": "Check a config, its data and its regularizers before an expensive run.",
    "plan": "Estimate which strategy fits which hardware, and how fast it trains.",
    "configs": "List the bundled configs, or print one to copy.",
    "regularizers": "List the regularizers, or explain one.",
    "report": "Write an HTML page that explains one or several runs.",
    "diagnose": "Diagnose overfitting from the log of any trainer.",
    "export": "Convert a checkpoint to a Hugging Face model folder or a GGUF file.",
    "harness": "Run tasks of lm-evaluation-harness on a checkpoint.",
    "verify-resume": "Check that a killed and resumed run ends as an uninterrupted one.",
}


def check_command(name: str) -> None:
    """Refuse an unknown command.

    Raises:
        ValueError: If there is no such command.
    """
    if name not in COMMANDS:
        raise ValueError(
            f"expected one of {', '.join(sorted(COMMANDS))}, got {name}: "
            f"{did_you_mean(name, COMMANDS, 'see lit-entrodrop --help')}"
        )


def overview() -> str:
    r"""Return the text of ``lit-entrodrop --help``.

    >>> "\n  fit            Train a model.\n" in overview()
    True
    """
    rows = "\n".join(f"  {name:<14} {text}" for name, text in COMMANDS.items())
    return f"{USAGE}\ncommands:\n{rows}\n\n{EXAMPLES}"
