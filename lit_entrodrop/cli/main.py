"""The program: LightningCLI's commands and ours."""

import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pkgutil import resolve_name

from jsonargparse import auto_cli
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_entrodrop import __version__
from lit_entrodrop.cli.lit_cli import LitCLI, run_lightning
from lit_entrodrop.cli.parsing import OneLineErrors, did_you_mean, one_line

USER_ERRORS = (ValueError, OSError, FloatingPointError, MisconfigurationException)
# By name, as `fit` has no need to wait until they are imported.
FUNCTIONS = {
    "export": "lit_entrodrop.commands.export:export",
    "quickstart": "lit_entrodrop.commands.quickstart:quickstart",
}
# Each has a parser of its own; some take all arguments of `fit` too.
SELF_PARSED = {
    "compare": "lit_entrodrop.commands.compare.command:main",
    "doctor": "lit_entrodrop.commands.doctor.command:main",
    "plan": "lit_entrodrop.commands.plan.command:main",
    "regularizers": "lit_entrodrop.commands.regularizers.command:main",
    "report": "lit_entrodrop.commands.report.command:main",
    "verify-resume": "lit_entrodrop.commands.verify_resume.command:command",
}


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; bad input ends with one line and exit status 1.

    Set ``LIT_ENTRODROP_TRACEBACK=1`` to see where an error came from.
    """
    words = sys.argv[1:] if args is None else list(args)
    # A script starts without the folder that the user is in, where a class_path may lead.
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    _print_on_any_terminal()
    _drop_foreign_noise()
    if words == ["--version"]:
        print(f"lit-entrodrop {__version__}")
        return
    try:
        _check_command(words)
        if words and words[0] in FUNCTIONS:
            auto_cli(
                resolve_name(FUNCTIONS[words[0]]),
                args=words[1:],
                as_positional=False,
                parser_class=OneLineErrors,
                prog=f"lit-entrodrop {words[0]}",
            )
        elif words and words[0] in SELF_PARSED:
            resolve_name(SELF_PARSED[words[0]])(words[1:])
        else:
            run_lightning(words or ["--help"])
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)
    except USER_ERRORS as error:
        if os.environ.get("LIT_ENTRODROP_TRACEBACK"):
            raise
        sys.exit(f"lit-entrodrop: error: {one_line(error)}")


def _check_command(words: Sequence[str]) -> None:
    known = [*LitCLI.subcommands(), *FUNCTIONS, *SELF_PARSED]
    if not words or words[0].startswith("-") or words[0] in known:
        return
    raise ValueError(
        f"expected a command of {', '.join(sorted(known))}, got {words[0]}: "
        f"{did_you_mean(words[0], known, 'see lit-entrodrop --help')}"
    )


def _print_on_any_terminal() -> None:
    # A formula with question marks says more than that a codec cannot encode it.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _drop_foreign_noise() -> None:
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`")
    # It prints the table, of which only a logger would keep a copy.
    warnings.filterwarnings("ignore", message="You called `self.log.*no logger configured")
    # What no interval has logged is logged when the epoch ends.
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval")
    # The metrics that are logged are sums over ranks already.
    warnings.filterwarnings("ignore", message=".*sync_dist=True")
    # The folder of a run that is resumed; any other use of it is refused.
    warnings.filterwarnings("ignore", message=".*exists and is not empty")
    # It is the module that knows the entropies of a batch.
    warnings.filterwarnings("ignore", message=".*`on_before_batch_transfer` in `LightningModule`")
    # An export reads shards in one process, as it should.
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
    # DeepSpeed calls collectives by names that PyTorch is about to change.
    warnings.filterwarnings("ignore", message=".*torch.distributed.*_tensor` is deprecated")
    # It clips by the norm that the trainer was given.
    warnings.filterwarnings("ignore", message="Since DeepSpeed handles gradient clipping")
    # `export` makes a single file of them.
    warnings.filterwarnings("ignore", message="When saving the DeepSpeed Stage 3 checkpoint")
    # It would like device meshes to be flattened, where two collectives in turn are as good.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    # Lightning recommends further packages of its makers in every run.
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(lambda record: "Tip:" not in record.getMessage())
