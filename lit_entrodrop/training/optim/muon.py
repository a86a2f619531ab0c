"""Muon for the matrices of hidden layers, and AdamW for all other parameters, as one optimizer."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal

import torch

from lit_entrodrop.training.optim.adamw import AdamW


class Muon(torch.optim.Optimizer):
    """Muon for the matrices of transformer blocks, and AdamW for all other parameters.

    Muon orthogonalizes the momentum of a matrix, so that all directions of its update have about
    the same length (Jordan et al. 2024; Liu et al. 2025, arXiv 2502.16982). Embeddings, head,
    vectors and experts that are stacked in three dimensions have AdamW. Shards of FSDP2 and tensor
    parallelism are gathered where the orthogonalization needs it. DeepSpeed flattens matrices, and
    is refused.

    Args:
        params: Parameters or parameter groups. A group with ``hidden`` true has Muon; without that
            entry, a group of matrices has.
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay per unit of learning rate; applied to matrices only.
        momentum: Decay rate of the momentum of Muon.
        nesterov: Whether Muon uses Nesterov momentum.
        ns_steps: Number of Newton-Schulz iterations.
        adjust_lr_fn: Scale of an update of Muon: ``match_rms_adamw`` gives it the size of one of
            AdamW, so that ``lr`` and ``weight_decay`` suit both; ``original`` scales it by the
            square root of rows over columns, if above 1.
        adamw_lr: Peak learning rate of AdamW; null for ``lr``.
        betas: Decay rates of the two moments of AdamW.
        eps: Number added to the denominator of AdamW.
    """

    #: Whether parameter groups separate the matrices of transformer blocks.
    separates_hidden: ClassVar[bool] = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-5,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust_lr_fn: Literal["match_rms_adamw", "original"] = "match_rms_adamw",
        adamw_lr: float | None = None,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        if not (0 <= momentum < 1 and ns_steps >= 1):
            raise ValueError(
                f"expected momentum in [0, 1) and ns_steps >= 1, got {momentum} and {ns_steps}"
            )
        given = list(params)
        of_groups = bool(given) and isinstance(given[0], dict)
        groups: list[dict[str, Any]] = [
            {**each, "params": list(each["params"])}
            for each in (given if of_groups else [{"params": given}])
        ]
        for group in groups:
            is_matrix = [parameter.ndim == 2 for parameter in group["params"]]
            group.setdefault("hidden", all(is_matrix))
        # Each part adds its settings to its groups.
        self._parts: dict[bool, torch.optim.Optimizer] = {}
        if hidden := [group for group in groups if group["hidden"]]:
            self._parts[True] = torch.optim.Muon(
                hidden,
                lr,
                weight_decay,
                momentum,
                nesterov,
                ns_steps=ns_steps,
                adjust_lr_fn=adjust_lr_fn,
            )
        if others := [group for group in groups if not group["hidden"]]:
            adamw_lr = lr if adamw_lr is None else adamw_lr
            self._parts[False] = AdamW(others, adamw_lr, betas, eps, weight_decay)
        super().__init__(
            groups,
            {
                "lr": lr,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "nesterov": nesterov,
                "ns_steps": ns_steps,
                "adjust_lr_fn": adjust_lr_fn,
                "adamw_lr": adamw_lr,
                "betas": betas,
                "eps": eps,
            },
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step with both parts, which share the state and the groups of this optimizer."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for hidden, part in self._parts.items():
            part.state = self.state
            part.param_groups = [each for each in self.param_groups if each["hidden"] == hidden]
            part.step()
        return loss
