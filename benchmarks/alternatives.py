"""Other ways to compute the loss of a regularizer, and floors of the time of a step."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from regularizers import Outputs, Regularizer, Regularizers, Requirements, TokenLoss, TrainingStep


class Recompute(Regularizer):
    """Change nothing, after the forward pass."""

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Return the losses of all tokens."""
        return token_loss


class ReferencePass(Regularizer):
    """Run the reference model without using its results."""

    @property
    def requirements(self) -> Requirements:
        """A reference model."""
        return Requirements(reference=True)

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        """Run the reference model."""
        assert step.reference is not None
        step.reference()
        return token_weight


class SecondPass(Regularizer):
    """Average the losses of two passes."""

    @property
    def requirements(self) -> Requirements:
        """A second pass."""
        return Requirements(second_forward=True, reads="loss")

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Add the loss of the second pass."""
        assert step.second_forward is not None
        return replace(token_loss, loss=(token_loss.loss + step.second_forward().nll) / 2)


FLOORS = {
    "MIR": SecondPass,
    "RDrop": SecondPass,
    "ReferenceKL": ReferencePass,
    "Rho1": ReferencePass,
    "WaveBound": ReferencePass,
}


def alternatives_to(arms: Mapping[str, Sequence[Regularizer]]) -> dict[str, list[Regularizer]]:
    """Return arms that compute the same losses after the forward pass, and floors.

    >>> from regularizers import EntroDrop, ReferenceKL
    >>> list(alternatives_to({"ReferenceKL": [ReferenceKL()], "EntroDrop": [EntroDrop()]}))
    ['ReferenceKL, recomputed', 'ReferenceKL, floor']
    """
    found: dict[str, list[Regularizer]] = {}
    for name, regularizers in arms.items():
        if Regularizers(regularizers).reads_parts:
            found[f"{name}, recomputed"] = [*regularizers, Recompute()]
        if name in FLOORS:
            found[f"{name}, floor"] = [FLOORS[name]()]
    return found
