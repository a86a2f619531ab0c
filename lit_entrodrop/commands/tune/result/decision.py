"""Decision between the methods that a search has found and plain fine-tuning.

The search selects the finalists with one seed, and the best of many trials looks better than it is.
The final runs therefore have other seeds, for plain fine-tuning too. Their validation losses
select one winner, and only this one is compared on the test split: a single test.
"""

from collections.abc import Sequence

from lit_entrodrop.commands.compare.judging.analysis import (
    ArmPair,
    ArmTrial,
    Finding,
    find_differences,
)
from lit_entrodrop.commands.report.rendering.formatting import LOSS


def select_winner(validated: Sequence[ArmTrial]) -> ArmTrial:
    """Select the finalist with the best mean score over seeds on the validation split."""
    return min(validated, key=lambda trial: trial.score)


def decide(winner: ArmTrial, plain: ArmTrial) -> Finding:
    """Compare the winner with plain fine-tuning on the test split, paired over seeds."""
    [found] = find_differences([ArmPair(winner, plain)])
    return found[LOSS]


def use_winner(finding: Finding) -> bool:
    """Return whether the winner is shown to be better; otherwise, plain fine-tuning is used."""
    return finding.verdict == "better"
