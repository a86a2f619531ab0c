from torch import nn

from lit_entrodrop.training.optim import (
    decay_groups,
)


def test_groups_hold_each_trainable_parameter_once() -> None:
    module = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 5))
    module[2].weight = module[0].weight
    module[1].bias.requires_grad_(False)
    decaying, others = decay_groups(module)
    assert [id(p) for p in decaying["params"]] == [id(module[0].weight)]
    assert [id(p) for p in others["params"]] == [id(module[1].weight), id(module[2].bias)]
    assert others["weight_decay"] == 0
    assert "weight_decay" not in decaying
