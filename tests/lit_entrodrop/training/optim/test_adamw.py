import torch

from lit_entrodrop.training.optim import AdamW


def test_adamw_is_fused_and_equals_torchs() -> None:
    weights = [torch.randn(3, 3, generator=torch.Generator().manual_seed(0)) for _ in range(2)]
    for weight in weights:
        weight.requires_grad_()
    settings = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.3}
    own = AdamW([weights[0]], **settings)  # type: ignore[arg-type]
    reference = torch.optim.AdamW([weights[1]], **settings)  # type: ignore[arg-type]
    assert own.param_groups[0]["fused"]
    for _ in range(3):
        for weight, optimizer in zip(weights, (own, reference), strict=True):
            optimizer.zero_grad()
            weight.square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(weights[0], weights[1])
