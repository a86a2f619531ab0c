"""Outputs of a forward pass for each token, and the losses derived from them.

B rows in the batch, T tokens in a row, V vocabulary size.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from regularizers.distributions import kl_divergence, token_entropy, top_entropy
from regularizers.functional import IGNORE_INDEX, is_unpredicted, predicted_labels, shift_right


class Predictions(Protocol):
    """The distributions p(· | x_<t) of a forward pass, in any representation."""

    def kl_divergences(self, other: Any) -> tuple[Tensor, Tensor]:
        """Return KL(self ‖ other) and KL(other ‖ self) of each token.

        ``[B, T]`` nats each; 0 where nothing predicts the token.
        """


@dataclass(frozen=True)
class Outputs:
    """Statistics of a forward pass for each token.

    Args:
        nll: ``[B, T]`` fp32, −ln p(x_t | x_<t), with gradient; 0 where the label is ignored.
        entropy: ``[B, T]`` fp32 nats of p(· | x_<t); NaN where nothing predicts x_t. With gradient
            only if required.
        logsumexp: ``[B, T]`` fp32, ln Σ_v exp z_v of the same logits, with gradient.
        mean_logit: ``[B, T]`` fp32, Σ_v z_v / V, with gradient. Label smoothing by ε uses it: the
            loss is (1 − ε)·nll + ε·(logsumexp − mean_logit).
        correct: ``[B, T]`` bool, whether no token is more likely than the label.
        logits: ``[B, T, V]``, aligned in the same way (row t predicts x_t); only if a regularizer
            requires them, because they are the largest tensor of a step.
        weighted_loss: Scalar Σ weight·nll with gradient, if the weights were known before the pass.
            Then no other output has a gradient, which saves a quarter of the head's operations.
        top_entropy: ``[B, T]`` fp32 nats, entropy among the most likely tokens, renormalized,
            without gradient; NaN where nothing predicts x_t. Only if a regularizer requires it.
        auxiliary_loss: Scalar with gradient that the model itself adds to the mean loss, such as a
            loss of its router; None for none.
        predictions: Predictions for :meth:`kl_divergence` if there are no logits; only if a
            regularizer requires the divergence.
    """

    nll: Tensor
    entropy: Tensor
    logsumexp: Tensor
    mean_logit: Tensor
    correct: Tensor
    logits: Tensor | None = None
    weighted_loss: Tensor | None = None
    top_entropy: Tensor | None = None
    auxiliary_loss: Tensor | None = None
    predictions: Predictions | None = None

    def kl_divergence(self, other: "Outputs") -> Tensor:
        """Compute KL(p ‖ q) of each token; p is the prediction of these outputs, q of the others.

        Args:
            other: Outputs of another pass over the same tokens, or of a reference model.

        Returns:
            ``[B, T]`` fp32 nats, 0 where nothing predicts the token; both sides get gradients.

        Raises:
            ValueError: If a pass kept neither logits nor predictions.

        >>> ids = torch.tensor([[0, 1]])
        >>> passes = [
        ...     Outputs.from_logits(logits, ids, torch.zeros_like(ids))
        ...     for logits in (torch.zeros(1, 2, 4), torch.tensor([[[1.0, 0, 0, 0]] * 2]))
        ... ]
        >>> passes[0].kl_divergence(passes[1])
        tensor([[0.0000, 0.1074]])
        """
        if self.logits is None or other.logits is None:
            return self.kl_divergences(other)[0]
        log_p, log_q = self.logits.log_softmax(-1), other.logits.log_softmax(-1)
        return kl_divergence(log_p, log_q).masked_fill(self.entropy.isnan(), 0.0)

    def kl_divergences(self, other: "Outputs") -> tuple[Tensor, Tensor]:
        """Compute KL(p ‖ q) and KL(q ‖ p) of each token, for little more than the cost of one.

        Args:
            other: As in :meth:`kl_divergence`.

        Returns:
            Both, each as :meth:`kl_divergence` returns it.

        Raises:
            ValueError: If a pass kept neither logits nor predictions.

        >>> ids = torch.tensor([[0, 1]])
        >>> passes = [
        ...     Outputs.from_logits(logits, ids, torch.zeros_like(ids))
        ...     for logits in (torch.zeros(1, 2, 4), torch.tensor([[[1.0, 0, 0, 0]] * 2]))
        ... ]
        >>> passes[0].kl_divergences(passes[1])
        (tensor([[0.0000, 0.1074]]), tensor([[0.0000, 0.1180]]))
        """
        if self.logits is not None and other.logits is not None:
            return self.kl_divergence(other), other.kl_divergence(self)
        if self.predictions is None or other.predictions is None:
            raise ValueError(
                "kl_divergence: expected outputs with predictions, got outputs without: set "
                "divergence=True in the requirements of the regularizer"
            )
        return self.predictions.kl_divergences(other.predictions)

    @classmethod
    def from_logits(
        cls,
        logits: Tensor,
        labels: Tensor,
        document_ids: Tensor,
        entropy_gradient: bool = False,
        top_k: int | None = None,
    ) -> "Outputs":
        """Compute the outputs from the logits of any causal LM.

        Args:
            logits: Logits ``[B, T, V]`` as the model returns them: row t predicts x_{t+1}.
            labels: Labels ``[B, T]`` int64, aligned with the inputs; -100 is ignored, and so are
                padding and the first token of a document.
            document_ids: Document numbers ``[B, T]`` int64, -1 for padding.
            entropy_gradient: Whether the entropy has a gradient.
            top_k: Number of most likely tokens for ``top_entropy``; None for none.

        Returns:
            The outputs, aligned with the inputs, including logits.

        >>> ids = torch.tensor([[0, 1]])
        >>> Outputs.from_logits(torch.zeros(1, 2, 4), ids, torch.zeros_like(ids)).entropy
        tensor([[   nan, 1.3863]])
        """
        labels = predicted_labels(labels, document_ids)
        aligned = shift_right(logits, 0.0).float()
        nll = nn.functional.cross_entropy(
            aligned.transpose(1, 2), labels, ignore_index=IGNORE_INDEX, reduction="none"
        )
        entropy = token_entropy(aligned if entropy_gradient else aligned.detach())
        unpredicted = is_unpredicted(document_ids)
        entropy = entropy.masked_fill(unpredicted, torch.nan)
        top = None
        if top_k is not None:
            top = top_entropy(aligned.detach(), top_k).masked_fill(unpredicted, torch.nan)
        label_logit = aligned.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
        correct = (labels != IGNORE_INDEX) & (label_logit >= aligned.amax(-1))
        statistics = nll, entropy, aligned.logsumexp(-1), aligned.mean(-1), correct
        return cls(*statistics, logits=aligned, top_entropy=top)


@dataclass(frozen=True)
class TokenLoss:
    """Loss and weight of each token; the training loss is Σ weight·loss / Σ weight.

    Args:
        loss: ``[B, T]`` fp32, 0 where the label is ignored.
        weight: ``[B, T]`` fp32, 0 where a token does not count.
    """

    loss: Tensor
    weight: Tensor
