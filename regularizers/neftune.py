"""NEFTune: uniform noise on the embeddings."""

import torch
from torch import Tensor

from regularizers.base import Regularizer
from regularizers.curricula import Curriculum, as_curriculum
from regularizers.functional import document_sum
from regularizers.training_step import TrainingStep


def neftune_noise(
    alterable: Tensor,
    document_ids: Tensor,
    dimensions: int,
    alpha: float,
    generator: torch.Generator,
) -> Tensor:
    """Draw noise of magnitude α/√(L·D) for each number of the embeddings.

    Args:
        alterable: Mask ``[B, T]`` bool of the tokens that get noise.
        document_ids: Document numbers ``[B, T]`` int64, -1 for padding; L is the number of tokens
            of a document.
        dimensions: Number of embedding dimensions, D.
        alpha: Strength α.
        generator: Random number generator.

    Returns:
        ``[B, T, D]`` fp32, 0 where a token gets no noise.

    >>> alterable, document_ids = torch.tensor([[True, False]]), torch.tensor([[0, 0]])
    >>> noise = neftune_noise(alterable, document_ids, 8, 5.0, torch.Generator().manual_seed(0))
    >>> (noise.abs().amax(-1) <= 5 / (2 * 8) ** 0.5).all()
    tensor(True)
    """
    shape, device = (*document_ids.shape, dimensions), document_ids.device
    lengths = document_sum(torch.ones_like(document_ids), document_ids)
    magnitude = alpha / (lengths * dimensions).sqrt()
    noise = torch.empty(shape, device=device).uniform_(-1, 1, generator=generator)
    return noise.mul_(magnitude.masked_fill(~alterable, 0.0)[..., None])


class NEFTune(Regularizer):
    """Add uniform noise to the embeddings.

    Each number of an embedding e of D numbers, in a document of L tokens, gets noise:

        e + α/√(L·D) · U(−1, 1)

    so that the noise of a whole document has an expected Euclidean norm of about α/√3, independent
    of its length. L is the true length of each packed document, because the model attends only
    within it. Packing thus does not change the noise, and the original case, one padded example per
    row, is a row with one document. Ports that use the length of the row give packed short
    documents less noise. As in the original, padding gets none. Special tokens count in L and get
    none either; the original perturbs them.

    Source:
        Jain et al. 2023, arXiv 2310.05914, algorithm 1; lengths as in the authors' training code.

    Args:
        curriculum: Noise α over training; a number is constant. The paper uses 5, 10 and 15.

    Raises:
        ValueError: If the noise is negative or not finite.

    >>> NEFTune().curriculum(0.5)
    5.0
    """

    def __init__(self, curriculum: Curriculum | float = 5.0) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)

    def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
        """Add the noise."""
        alpha = self.curriculum(step.progress)
        noise = neftune_noise(
            step.alterable, step.document_ids, embeddings.shape[-1], alpha, step.generator()
        )
        return embeddings + noise.to(embeddings.dtype)
