"""L2-SP: keep the weights near their initial values."""

from torch import Tensor

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum
from regularizers.parameters import ParameterPart


def l2_sp(values: Tensor, initial: Tensor) -> Tensor:
    """Return half the squared distance of weights from their initial values.

    Args:
        values: Weights of any shape.
        initial: Initial weights, same shape.

    Returns:
        A scalar.

    >>> import torch
    >>> l2_sp(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0]))
    tensor(2.)
    """
    return (values - initial).square().sum() / 2


class L2SP(Regularizer):
    """Pull the weights towards their initial values, in place of zero.

    Weight decay forgets what the model knew before training. This penalty keeps it:

        L' = L + (α / 2)·‖θ − θ⁰‖²

    θ are all trained parameters, and θ⁰ their values before training: the pretrained weights, and
    for added tokens the means of their pieces. The strength α is the curriculum. The original
    method adds a second penalty for new layers, which a language model does not have.

    By default, the gradient α·(θ − θ⁰) is part of the gradient of the loss, as in the original
    method: it is clipped with it, and an adaptive optimizer scales it. With ``decoupled``, each
    step moves θ by η·α·(θ⁰ − θ) with the learning rate η of the parameter, as AdamW does with its
    weight decay (Chen et al. 2020, arXiv 2004.12651). Useful strengths are then higher.

    The initial weights come from the model that ``model.lm`` names, also if a run is resumed. A
    CPU reads them from its safetensors files at each step, mapped into memory. A GPU keeps a copy
    of its own, of 2 bytes a weight for a model in half precision, unless ``keep_copy`` is false.

    Source:
        Li et al. 2018, arXiv 1802.01483, section 3.2.

    Args:
        curriculum: Strength α over training; a number is constant.
        decoupled: Whether to pull the weights directly instead of by the gradient.
        keep_copy: Whether a GPU keeps a copy of the initial weights. Otherwise each step moves them
            from the files of the model to the GPU, which takes time in place of memory.

    >>> L2SP().requirements.initial_weights
    True
    """

    def __init__(
        self,
        curriculum: Curriculum | float = 0.01,
        decoupled: bool = False,
        keep_copy: bool = True,
    ) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        self.decoupled = decoupled
        self.keep_copy = keep_copy

    @property
    def requirements(self) -> Requirements:
        """The initial weights."""
        return Requirements(initial_weights=True, initial_copy=self.keep_copy)

    def on_parameter(self, parameter: ParameterPart, progress: float) -> Tensor | None:
        """Penalize the squared distance from the initial values."""
        assert parameter.initial is not None
        strength = self.curriculum(progress)
        return strength * l2_sp(parameter.values, parameter.initial) if strength else None
