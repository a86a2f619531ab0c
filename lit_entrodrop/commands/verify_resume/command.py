"""`lit-entrodrop verify-resume`: check that a run of a config can be killed and resumed."""

import sys
from collections.abc import Sequence

from lit_entrodrop.cli.terminal import command_parser, refuse_ranks
from lit_entrodrop.commands.verify_resume.killed_runs import Program, run_program, verify_resume
from lit_entrodrop.commands.verify_resume.short_run import KillSchedule
from lit_entrodrop.runs.metrics_file import FILE_NAME as METRICS

DESCRIPTION = """Check that a run of your config can be killed and resumed.

Trains the config for two short epochs, once without interruption. Trains it again, killed (SIGKILL,
all ranks) in the first epoch, resumed, killed in the second epoch and resumed again. Then compares
the last checkpoints bit by bit (weights, optimizer, learning rate, entropies, positions of loops
and data), and every row of metrics.csv. Exits with status 0 if all is equal; else with 1, after
printing the first difference.

Takes all arguments of `fit`. Writes into a temporary folder ($TMPDIR), never into the run folder,
and removes it at the end. More than 8 steps, the default, reveal nothing more. The text must
suffice for one epoch of half the steps, each of data.batch_size x accumulate_grad_batches x devices
blocks."""
EPILOG = "example: lit-entrodrop verify-resume --config configs/base.yaml --config mine.yaml"


def main(args: Sequence[str], program: Program = run_program) -> None:
    """Run the command; exit with status 1 if the runs differ."""
    parser = command_parser(
        "verify-resume",
        DESCRIPTION,
        EPILOG,
        usage="%(prog)s [--steps STEPS] [any argument of fit ...]",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=KillSchedule.steps,
        help="Number of optimizer steps, a multiple of 4 (default: %(default)s).",
    )
    own, arguments = parser.parse_known_args(args)
    refuse_ranks("verify-resume", "ranks")
    compared = verify_resume(arguments, KillSchedule(own.steps), program)
    extent = (
        f"{compared.tensors} tensors and {compared.values} values of the last checkpoint, "
        f"{compared.rows} rows of {METRICS}"
    )
    if not compared.differences:
        print(f"equal: {extent}")
        return
    print(f"different: {compared.differences[0]}")
    print(f"the first of {len(compared.differences)} differences among {extent}")
    sys.exit(1)
