"""`lit-entrodrop preview`: show what a config trains on, token by token."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lit_entrodrop.cli.terminal import command_parser, console_of
from lit_entrodrop.runs.writing import check_writable, write_whole

WIDTH = 100  # characters, if the output is not a terminal
DESCRIPTION = """Show what a config trains on, token by token, without training.

Takes all arguments of `fit`. Reads, tokenizes and packs the text as `fit` does, and shows the
blocks of the training step at --progress:

  - which tokens count in the loss, and which do not, such as prompts and headers of turns;
  - where documents begin in a block, which of them are cut, special tokens, and padding;
  - what regularizers do to these tokens in this very step: the tokens that are dropped, replaced
    or weighted are those that `fit` drops, replaces and weights, with the same seed and one device.

Then it prints statistics of each split: tokens that count, lengths, cut documents, padding, and
how often text was skipped, cut or changed, by reason. The model is loaded for entropies and for
regularizers that need it; without it, their effects are left out, and a note says so. Control
characters in the text are shown, never sent to the terminal."""
EPILOG = """examples:
  lit-entrodrop preview --config configs/base.yaml --config configs/model/tiny_base.yaml \\
      --data.corpus chats.jsonl
  lit-entrodrop preview --config configs/base.yaml --config mine.yaml \\
      --config configs/regularizers/entrodrop.yaml --progress 1 --output preview.html
  lit-entrodrop preview --config mine.yaml --split validation --blocks 10 --no_model"""


def main(args: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: If an option is invalid, or the text cannot be used.
    """
    own, arguments = _parser().parse_known_args(args)
    _check(own)
    # Late, so that help and errors in the options appear at once.
    from lit_entrodrop.cli.fit_config import resolved_config
    from lit_entrodrop.cli.noise import lightning_warnings_only
    from lit_entrodrop.commands.doctor.configured_run import configured_run
    from lit_entrodrop.commands.preview.content import preview_of
    from lit_entrodrop.commands.preview.terminal import Painter

    config = resolved_config(arguments)
    with lightning_warnings_only(), configured_run(config) as run:
        preview = preview_of(run, own.split, own.progress, own.blocks, not own.no_model)
    console = console_of(WIDTH)
    Painter(console).show(preview, own.tokens)
    if own.output is not None:
        from lit_entrodrop.commands.preview.page import preview_page

        write_whole(own.output, preview_page(preview))
        console.print(f"Page: {own.output}", soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "preview", DESCRIPTION, EPILOG, usage="%(prog)s [options below] [any argument of fit ...]"
    )
    add = parser.add_argument
    add(
        "--split",
        default="train",
        metavar="NAME",
        help="Split whose blocks are shown (default: train). Those of other splits are evenly "
        "spaced, and regularizers do not act on them.",
    )
    add(
        "--progress",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="Share of the training that is done, in [0, 1], at which its blocks and regularizers "
        "are shown (default: %(default)s; 1 is the last step).",
    )
    add(
        "--blocks",
        type=int,
        default=3,
        metavar="N",
        help="Number of blocks to show (default: %(default)s).",
    )
    add(
        "--tokens",
        type=int,
        default=400,
        metavar="N",
        help="Maximum number of tokens of a block on the terminal (default: %(default)s). The page "
        "has all.",
    )
    add(
        "--no_model",
        action="store_true",
        help="Load no model: no entropies, and no regularizer that needs them.",
    )
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="Path to an .html file for the same as a page; an earlier one is replaced.",
    )
    return parser


def _check(own: argparse.Namespace) -> None:
    if not 0 <= own.progress <= 1:
        raise ValueError(
            f"progress: expected a share in [0, 1], got {own.progress}: 0.5 is the middle of the "
            "training"
        )
    for name in ("blocks", "tokens"):
        if (value := getattr(own, name)) < 1:
            raise ValueError(f"{name}: expected a number of at least 1, got {value}: raise it")
    if own.output is not None:
        if own.output.suffix.lower() not in (".html", ".htm"):
            raise ValueError(
                f"output: expected the name of an .html file, got {own.output}: add the suffix"
            )
        check_writable(own.output)
