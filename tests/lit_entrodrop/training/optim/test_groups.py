import copy
from functools import partial

import pytest
import torch
from torch import nn

from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.config import LoRAConfig
from lit_entrodrop.training.optim import (
    LRSchedule,
    Optimization,
    ParameterRule,
    freeze,
    parameter_groups,
)
from lit_entrodrop.training.optim.groups import apply_factors, group_table
from lit_entrodrop.training.optim.naming import named_parameters
from tests.helpers.tiny import Tiny


@pytest.fixture(scope="module")
def llama(tiny_module: Tiny) -> nn.Module:
    """Two layers, with a tied head."""
    return build_causal_lm(tiny_module.lm())


def names_in(module: nn.Module, group: dict) -> set[str]:
    names = {id(each.parameter): each.names[0] for each in named_parameters(module)}
    return {names[id(parameter)] for parameter in group["params"]}


def test_groups_hold_each_trainable_parameter_once() -> None:
    module = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 5))
    module[2].weight = module[0].weight
    module[1].bias.requires_grad_(False)
    decaying, others = parameter_groups(module)
    assert [id(p) for p in decaying["params"]] == [id(module[0].weight)]
    assert [id(p) for p in others["params"]] == [id(module[1].weight), id(module[2].bias)]
    assert others["weight_decay"] == 0
    assert "weight_decay" not in decaying


def test_the_first_rule_that_matches_any_name_of_a_tied_weight_applies(llama: nn.Module) -> None:
    rules = [ParameterRule("lm_head", lr=0.5), ParameterRule("embed_tokens", lr=0.1)]
    groups = parameter_groups(llama, rules)
    assert [each["lr_factor"] for each in groups] == [0.5, 1, 1]
    assert names_in(llama, groups[0]) == {"model.embed_tokens.weight"}
    assert sum(len(each["params"]) for each in groups) == len(list(llama.parameters()))


def test_a_decay_of_a_rule_holds_for_vectors_too(llama: nn.Module) -> None:
    groups = parameter_groups(llama, [ParameterRule("norm|q_proj", lr=0.5, weight_decay=2)])
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.3)
    apply_factors(optimizer)
    found = {group["name"]: (group["lr"], group["weight_decay"]) for group in groups}
    assert found["norm|q_proj, vectors"] == found["norm|q_proj, matrices"] == (0.05, 0.6)
    assert found["matrices"] == (0.1, 0.3)
    assert "vectors" not in found


def test_each_layer_below_the_last_has_a_lower_rate(llama: nn.Module) -> None:
    groups = parameter_groups(llama, [ParameterRule("q_proj", lr=0.1)], layer_lr_decay=0.5)
    factors = {each["name"]: each["lr_factor"] for each in groups}
    assert factors == {
        "q_proj, layer 0, matrices": 0.05,
        "q_proj, layer 1, matrices": 0.1,
        "embeddings, matrices": 0.25,
        "layer 0, matrices": 0.5,
        "layer 0, vectors": 0.5,
        "layer 1, matrices": 1,
        "layer 1, vectors": 1,
        "head, vectors": 1,
    }


def test_block_matrices_are_separate_from_embeddings_and_factors_multiply(
    llama: nn.Module,
) -> None:
    rules = [ParameterRule("layers.0", lr=0.5)]
    groups = parameter_groups(llama, rules, lr_factors={"_proj": 4.0}, separate_hidden=True)
    found = {each["name"]: (each["lr_factor"], each["hidden"]) for each in groups}
    assert found == {
        "layers.0, vectors": (0.5, False),
        "layers.0, _proj, hidden matrices": (2.0, True),
        "matrices": (1.0, False),
        "vectors": (1.0, False),
        "_proj, hidden matrices": (4.0, True),
    }


def test_freezing_leaves_the_rest_and_the_table_counts_both(llama: nn.Module) -> None:
    model = copy.deepcopy(llama)
    freeze(model, [ParameterRule("embed_tokens", freeze=True), ParameterRule("norm", lr=0.5)])
    frozen = [each.names for each in named_parameters(model) if not each.parameter.requires_grad]
    assert frozen == [("model.embed_tokens.weight", "lm_head.weight")]
    groups = parameter_groups(model, [ParameterRule("norm", lr=0.5)])
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.25)
    apply_factors(optimizer)
    rows = [line.split() for line in group_table(optimizer.param_groups, model).splitlines()]
    assert rows == [
        ["group", "tensors", "parameters", "lr", "weight", "decay"],
        ["norm,", "vectors", "5", "80", "0.05", "0"],
        ["matrices", "14", "4,608", "0.1", "0.25"],
        ["frozen", "1", "5,120"],
    ]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            [ParameterRule("embed_tokns")],
            r"'embed_tokns', which matches none: did you mean embed",
        ),
        ([ParameterRule("layers.7")], r"matches none: did you mean layers\.[01]\?"),
        ([ParameterRule("^h$")], r"matches none: names are such as model\.embed_tokens"),
        ([ParameterRule("proj"), ParameterRule("q_proj")], r"'q_proj', but an earlier pattern"),
        ([ParameterRule(".", freeze=True)], r"got freeze for all of them: remove '\.'"),
    ],
)
def test_rules_without_effect_are_refused(
    rules: list[ParameterRule], message: str, llama: nn.Module
) -> None:
    with pytest.raises(ValueError, match=rf"model\.groups: .*{message}"):
        freeze(llama, rules)
    assert all(parameter.requires_grad for parameter in llama.parameters())


def test_factors_out_of_proportion_are_reported_or_refused(llama: nn.Module) -> None:
    rules = [ParameterRule("norm", lr=1000.0)]
    optimization = Optimization(partial(torch.optim.AdamW, lr=0.01), LRSchedule(), rules)
    with pytest.warns(UserWarning, match=r"rate of norm, vectors is 10, 1000 times that of model"):
        optimization.build(copy.deepcopy(llama))
    optimization.rules = [ParameterRule("proj", weight_decay=1e5)]
    with pytest.raises(ValueError, match=r"below 1 for proj, matrices, got 1000 x 0\.01"):
        optimization.build(copy.deepcopy(llama))


def test_adapters_are_matched_by_the_names_of_peft_without_its_wrappers(
    tiny_module: Tiny,
) -> None:
    adapted = build_causal_lm(tiny_module.lm(lora=LoRAConfig(rank=2, target_modules=["q_proj"])))
    rules = [ParameterRule(r"layers\.0\.self_attn\.q_proj\.lora_B\.weight$", lr=2.0)]
    freeze(adapted, rules)
    first, rest = parameter_groups(adapted, rules)
    assert (len(first["params"]), len(rest["params"])) == (1, 3)
    with pytest.raises(ValueError, match=r"matches only frozen ones: .* such as lora_A"):
        freeze(adapted, [ParameterRule("embed_tokens")])


def test_lora_plus_trains_b_at_its_own_rate(tiny_module: Tiny) -> None:
    lora = LoRAConfig(rank=2, target_modules=["q_proj"], loraplus_lr_ratio=16.0)
    module = tiny_module.module(lm={"lora": lora})
    trainer = tiny_module.trainer(max_epochs=-1, max_steps=1, limit_val_batches=0)
    trainer.fit(module, datamodule=tiny_module.data())
    names = {parameter: name for name, parameter in module.named_parameters()}
    rates = {
        names[parameter].split(".")[-3]: group["initial_lr"]
        for group in trainer.optimizers[0].param_groups
        for parameter in group["params"]
    }
    assert rates == pytest.approx({"lora_A": 0.01, "lora_B": 0.16})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"match": "("}, "expected a regular expression"),
        ({"lr": 0}, "expected lr > 0"),
        ({"lr": float("nan")}, "expected lr > 0"),
        ({"weight_decay": -1}, "expected weight_decay >= 0"),
        ({"freeze": True, "lr": 2}, "expected neither lr nor weight_decay"),
    ],
)
def test_bad_rules_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=rf"model\.groups: {message}"):
        ParameterRule(**{"match": "norm", **settings})


def test_rates_that_vanish_or_decay_nothing_are_refused(llama: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"product is above 0 and finite, got 0\.0 for embed"):
        parameter_groups(llama, layer_lr_decay=1e-200)
    with pytest.raises(ValueError, match=r"layer_lr_decay: expected 1 for a model without"):
        parameter_groups(nn.Linear(2, 2), layer_lr_decay=0.9)
