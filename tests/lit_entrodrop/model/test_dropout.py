from functools import partialmethod
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from lit_entrodrop.commands.export import export
from lit_entrodrop.model.building import build_causal_lm, build_on_meta, transformer_blocks
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import LMConfig, LoRAConfig
from lit_entrodrop.model.dropout import DropoutConfig, DropoutHook
from regularizers import Outputs, Regularizer, Requirements, TrainingStep
from tests.helpers.architectures import ARCHITECTURES, MORE_THAN_LINEAR, WITHOUT_SDPA
from tests.helpers.tiny import Tiny

PARTS = ("attention", "hidden", "embedding")
WITHOUT = {
    "attention": {"mamba", "recurrent_gemma", "xlstm", "cpmant"},
    "hidden": {"cpmant"},
    "embedding": set[str](),
}
ALL = {**ARCHITECTURES, **MORE_THAN_LINEAR}
SUPPORTED = [(name, part) for name in ALL for part in PARTS if name not in WITHOUT[part]]
REFUSED = [(name, part) for part in PARTS for name in sorted(WITHOUT[part])]
STRONG = DropoutConfig(attention=0.3, hidden=0.3, embedding=0.3)


def build(name: str = "llama", dropout: DropoutConfig | None = None, **settings: Any) -> CausalLM:
    torch.manual_seed(0)
    architecture = {"model_type": name, **ALL[name]}
    attention: Any = "eager" if name in WITHOUT_SDPA else "sdpa"
    given = {"attention": attention, "head": "naive", **settings}
    return build_causal_lm(LMConfig(None, architecture, dropout=dropout, **given))


def losses(model: CausalLM, seed: int = 0) -> Tensor:
    """Return the loss of each token, with the random numbers of a seed."""
    ids = torch.randint(2, 64, (2, 12), generator=torch.Generator().manual_seed(0))
    places = torch.arange(12).expand(2, 12)
    torch.manual_seed(seed)
    nll: Tensor = model(ids, ids, places, torch.zeros_like(ids)).nll
    return nll


def gradients(model: CausalLM, seed: int = 0) -> list[Tensor]:
    losses(model, seed).sum().backward()
    return [each.grad for each in model.parameters() if each.grad is not None]


@pytest.mark.parametrize(("name", "part"), SUPPORTED)
def test_each_part_acts_in_training_alone(name: str, part: str) -> None:
    # Other parts are off, even if the architecture has them on by default.
    plain = build(name, DropoutConfig())
    torch.testing.assert_close(losses(plain), losses(plain.eval()), atol=0, rtol=0)
    model = build(name, DropoutConfig(**{part: 0.3}))
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), atol=0, rtol=0)
    assert not torch.equal(losses(model), losses(plain))
    assert not torch.equal(losses(model, 1), losses(model, 0))
    torch.testing.assert_close(losses(model), losses(model), atol=0, rtol=0)
    torch.testing.assert_close(losses(model.eval()), losses(plain), atol=0, rtol=0)


@pytest.mark.parametrize(("name", "part"), REFUSED)
def test_model_without_a_place_is_refused(name: str, part: str) -> None:
    with pytest.raises(ValueError, match=rf"lm\.dropout\.{part}: expected .* {name}.*set it to 0"):
        build(name, DropoutConfig(**{part: 0.1}))


def test_setting_that_the_architecture_does_not_read_is_none() -> None:
    """Phi-3 has ``embd_pdrop`` in its configuration, and no dropout of embeddings."""
    shape = {**ARCHITECTURES["llama"], "model_type": "phi3"}
    model = build_causal_lm(LMConfig(None, shape, dropout=DropoutConfig(embedding=0.3)))
    assert not torch.equal(losses(model, 0), losses(model, 1))


def test_attention_that_cannot_drop_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"flex_attention, which has none: set lm\.attention to sdpa"
    ):
        build(dropout=DropoutConfig(attention=0.1), attention="flex_attention")


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_probability_is_checked(value: float) -> None:
    with pytest.raises(ValueError, match=r"hidden: expected a probability in \[0, 1\), got"):
        DropoutConfig(hidden=value)


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_hidden_dropout_scales_what_is_kept_of_each_branch(name: str) -> None:
    """A branch that adds ones adds 0 or 1 / (1 - p) to the residual stream."""
    model = build(name, DropoutConfig(hidden=0.2))
    [block, *_] = transformer_blocks(model)
    hooks = [hook for each in block.modules() for hook in each._forward_hooks.values()]
    assert len([hook for hook in hooks if isinstance(hook, DropoutHook)]) == 2
    dropped = hooks[0](block, (), torch.ones(10_000))
    assert dropped.unique().tolist() == [0.0, 1.25]
    assert (dropped == 0).float().mean() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("lora", [None, LoRAConfig(rank=2)])
def test_recomputed_blocks_draw_the_same_masks(lora: LoRAConfig | None) -> None:
    plain = build(dropout=STRONG, lora=lora)
    saving = build(dropout=STRONG, lora=lora, activation_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    assert not torch.equal(losses(plain), losses(build(lora=lora)))
    torch.testing.assert_close(gradients(saving), gradients(plain))


def test_compiled_blocks_drop_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    plain, compiled = build(dropout=STRONG), build(dropout=STRONG, compile=True)
    torch.testing.assert_close(losses(compiled), losses(plain))
    torch.testing.assert_close(losses(compiled.eval()), losses(plain.eval()))


def test_model_on_meta_has_the_same_dropout() -> None:
    config = LMConfig(None, {"model_type": "llama", **ALL["llama"]}, dropout=STRONG)
    on_meta = build_on_meta(config).to_empty(device="cpu")
    on_meta.load_state_dict(build(dropout=STRONG).state_dict())
    rotary = build().unwrapped.base_model.rotary_emb
    on_meta.unwrapped.base_model.rotary_emb = rotary
    torch.testing.assert_close(losses(on_meta), losses(build(dropout=STRONG)))


def test_building_draws_no_random_numbers_for_its_trials() -> None:
    build()
    expected = torch.rand(3)
    build(dropout=STRONG)
    torch.testing.assert_close(torch.rand(3), expected, atol=0, rtol=0)


def test_config_of_a_checkpoint_is_rebuilt() -> None:
    values = {"lora": None, "dropout": {"attention": 0.1, "hidden": 0.2, "embedding": 0.0}}
    assert LMConfig.from_dict(values).dropout == DropoutConfig(attention=0.1, hidden=0.2)
    assert LMConfig.from_dict({"lora": None}).dropout is None


def test_exported_model_has_the_dropout_of_its_base(tiny: Tiny) -> None:
    module = tiny.module(lm={"dropout": STRONG})
    trainer = tiny.trainer(max_steps=2)
    trainer.fit(module, datamodule=tiny.data())
    trainer.save_checkpoint(tiny.folder / "trained.ckpt")
    folder = export(str(tiny.folder / "trained.ckpt"), str(tiny.folder / "out"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.attention_dropout == 0
    torch.testing.assert_close(model.state_dict(), module.causal_lm.unwrapped.state_dict())
    ids = torch.arange(2, 21)[None]
    logits = [each(input_ids=ids, use_cache=False).logits for each in (model.train(), model.eval())]
    torch.testing.assert_close(*logits, atol=0, rtol=0)


class Keep(Regularizer):
    """Stores the entropies of the first step's clean tokens, and the loss of its own pass."""

    def __init__(self) -> None:
        super().__init__()
        self.clean: list[Tensor] = []
        self.trained = torch.zeros(())

    @property
    def requirements(self) -> Requirements:
        return Requirements(entropy="online", reference=True)

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        assert step.entropy is not None
        assert step.reference is not None
        if step.global_step == 0:
            self.clean = [step.entropy, step.reference().nll]
            self.trained = outputs.nll.detach()
        return loss


def first_step(tiny: Tiny, dropout: DropoutConfig | None) -> tuple[Keep, Tensor]:
    base, keep = "package:lit_entrodrop/model/tiny_base", Keep()
    lm = {"pretrained": base, "tokenizer": None, "dropout": dropout}
    trainer = tiny.trainer(max_steps=1)
    data = tiny.data(tokenizer=base)
    module = tiny.module(keep, lm=lm)
    validated = trainer.validate(module, data, verbose=False)[0]["val/loss"]
    trainer.fit(module, datamodule=data)
    return keep, torch.tensor(validated)


def test_entropies_reference_and_evaluation_are_without_dropout(tiny: Tiny) -> None:
    plain, plain_loss = first_step(tiny, None)
    dropping, loss = first_step(tiny, STRONG)
    torch.testing.assert_close(dropping.clean, plain.clean, atol=0, rtol=0, equal_nan=True)
    torch.testing.assert_close(loss, plain_loss, atol=0, rtol=0)
    assert (dropping.trained - plain.trained).abs().mean() > 0.1
