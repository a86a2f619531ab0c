import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.training.passes import with_auxiliary_loss
from tests.helpers.architectures import ARCHITECTURES

GATED = ARCHITECTURES["llama"]
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
ROUTERS: dict[str, dict[str, Any]] = {
    "mixtral": {**GATED, "num_local_experts": 4},
    "olmoe": {**GATED, "num_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {**GATED, **EXPERTS, "shared_expert_intermediate_size": 8},
    "qwen3_moe": {**GATED, **EXPERTS},
}
ASKED = {"output_router_logits": True, "router_aux_loss_coef": 0.5}
IDS = torch.randint(2, 64, (3, 20), generator=torch.Generator().manual_seed(0))


def build(name: str, architecture: dict[str, Any], **settings: Any) -> CausalLM:
    torch.manual_seed(0)
    config = {"model_type": name, **architecture}
    return build_causal_lm(LMConfig(pretrained=None, architecture=config, **settings))


def run(causal_lm: CausalLM, ids: Tensor = IDS, **more: Any) -> Any:
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    return causal_lm(ids, ids, positions, torch.zeros_like(ids), **more)


def gradients(causal_lm: CausalLM, loss: Tensor) -> dict[str, Tensor]:
    causal_lm.zero_grad()
    loss.backward()
    found = {name: p.grad for name, p in causal_lm.named_parameters() if p.grad is not None}
    return {name: gradient.clone() for name, gradient in found.items()}


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("head", ["torch", "naive"])
@pytest.mark.parametrize("name", list(ROUTERS))
def test_loss_and_gradients_are_those_of_transformers(
    name: str, head: Any, checkpointed: bool
) -> None:
    architecture = {**ROUTERS[name], **ASKED}
    causal_lm = build(name, architecture, head=head, activation_checkpointing=checkpointed)
    assert causal_lm.adds_loss
    own = causal_lm.unwrapped(input_ids=IDS, labels=IDS, use_cache=False).loss
    expected = gradients(causal_lm, own)
    outputs = run(causal_lm)
    assert outputs.auxiliary_loss > 0.5
    mean = outputs.nll.sum() / outputs.nll.count_nonzero()
    total = mean + outputs.auxiliary_loss
    torch.testing.assert_close(total, own)
    actual = gradients(causal_lm, total)
    assert any("gate" in parameter for parameter in actual)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
    # The same model as before, and clean evaluation.
    assert run(causal_lm.eval()).auxiliary_loss is None


def test_weights_known_before_the_pass_leave_the_loss_of_the_model_apart() -> None:
    causal_lm = build("mixtral", {**ROUTERS["mixtral"], **ASKED}, head="torch")
    outputs = run(causal_lm, token_weight=torch.ones(IDS.shape))
    expected = run(causal_lm)
    torch.testing.assert_close(outputs.weighted_loss, expected.nll.sum())
    torch.testing.assert_close(outputs.auxiliary_loss, expected.auxiliary_loss)


@pytest.mark.parametrize("change", [{}, {**ASKED, "router_aux_loss_coef": 0.0}])
def test_nothing_is_added_unless_the_config_asks(change: dict[str, Any]) -> None:
    causal_lm = build("mixtral", {**ROUTERS["mixtral"], **change})
    assert not causal_lm.adds_loss
    assert run(causal_lm).auxiliary_loss is None


def test_micro_batches_share_the_loss_by_their_weights() -> None:
    causal_lm = build("mixtral", {**ROUTERS["mixtral"], **ASKED})
    weights = [torch.tensor(19.0), torch.tensor(38.0), torch.tensor(0.0)]
    parts = [run(causal_lm, IDS[:1]), run(causal_lm, IDS[1:]), run(causal_lm, IDS[:1])]
    summed = [
        with_auxiliary_loss(part.nll.sum() * (weight > 0), weight, part)
        for part, weight in zip(parts, weights, strict=True)
    ]
    own = [float(part.auxiliary_loss) for part in parts]
    plain = float(run(causal_lm).nll.sum() / 57)
    mean = float(sum(each.detach() for each in summed) / sum(weights))
    assert mean == pytest.approx(plain + (own[0] + 2 * own[1]) / 3, rel=1e-5)
    assert not math.isclose(own[0], own[1], rel_tol=1e-3)


def test_a_router_without_a_loss_is_refused_by_name() -> None:
    # Transformers has the setting, and no loss.
    afmoe = {**GATED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
    more = {"num_dense_layers": 0, "output_router_logits": True}
    with pytest.raises(ValueError, match=r"output_router_logits, got afmoe, .* \{output_router"):
        build("afmoe", {**afmoe, **more})


def test_a_loss_of_the_logits_is_refused_by_the_fused_head_alone() -> None:
    bamba = {**GATED, "num_key_value_heads": 2, "mamba_n_heads": 4, "mamba_d_head": 8}
    bamba |= {"mamba_d_state": 4, "mamba_expand": 2, "z_loss_coefficient": 0.1}
    with pytest.raises(ValueError, match=r"bamba adds a loss .* set model.lm.head to naive"):
        build("bamba", bamba)
    causal_lm = build("bamba", bamba, head="naive")
    own = causal_lm.unwrapped(input_ids=IDS, labels=IDS, use_cache=False).loss
    outputs = run(causal_lm)
    mean = outputs.nll.sum() / outputs.nll.count_nonzero()
    torch.testing.assert_close(mean + outputs.auxiliary_loss, own)


@pytest.mark.parametrize("head", ["torch", "naive"])
def test_a_cross_entropy_that_the_model_computes_itself_is_not_added(head: Any) -> None:
    sizes = {"vocab_size": 64, "d_model": 8, "decoder_layers": 1, "decoder_ffn_dim": 8}
    more = {"decoder_attention_heads": 2, "max_position_embeddings": 64}
    with pytest.warns(UserWarning, match="bart computes the loss of its labels itself"):
        causal_lm = build("bart", {**sizes, **more}, head=head)
    outputs = run(causal_lm)
    assert outputs.auxiliary_loss is None
    assert outputs.nll.sum() > 0
