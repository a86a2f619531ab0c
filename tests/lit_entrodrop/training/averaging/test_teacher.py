from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from lit_entrodrop.model.clean_pass import forward_clean
from lit_entrodrop.model.config import LoRAConfig
from lit_entrodrop.runs.checkpoints.averages import AVERAGE
from lit_entrodrop.runs.metrics_file import MetricsFile, read_metrics
from lit_entrodrop.training.averaging.weight_average import WeightAverage
from lit_entrodrop.training.module import LitCausalLM
from regularizers import Outputs, Regularizer, Requirements, TokenLoss, TrainingStep
from tests.helpers.llama import make_llama
from tests.helpers.plugins import MeanTeacher
from tests.helpers.tiny import Tiny

DECAY = 0.9


class Taught(Regularizer):
    """Keeps what the teacher tells, and leaves the loss as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.random_state = torch.get_rng_state()

    @property
    def requirements(self) -> Requirements:
        return Requirements(teacher=DECAY)

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        assert step.teacher is not None
        self.random_state = torch.get_rng_state()
        taught = step.teacher()
        assert not taught.nll.requires_grad
        self.seen.append(taught.nll)
        return token_loss


class Follow(L.Callback):
    """Averages the weights in float64, and runs another model that has the averages."""

    def __init__(self, taught: Taught) -> None:
        self.taught = taught
        self.steps = 0
        self.averages: dict[str, Tensor] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.averages = {
            name: weight.detach().double()
            for name, weight in pl_module.causal_lm.named_parameters()
            if weight.requires_grad
        }

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.before = {name: p.detach().clone() for name, p in weights(pl_module).items()}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        with torch.no_grad():
            after = {name: p.detach().clone() for name, p in weights(pl_module).items()}
            for name, average in self.averages.items():
                weights(pl_module)[name].copy_(average)
            with trainer.precision_plugin.forward_context():
                # In train mode, with the same dropout.
                torch.set_rng_state(self.taught.random_state)
                expected = forward_clean(pl_module.causal_lm, batch).nll
            for name, weight in after.items():
                weights(pl_module)[name].copy_(weight)
        # Recent sums of float32 against float64.
        tolerance = 1e-4 if trainer.precision == "32-true" else 0.02
        torch.testing.assert_close(self.taught.seen[-1], expected, atol=tolerance, rtol=0)
        if trainer.global_step == self.steps:
            assert all(torch.equal(self.before[name], after[name]) for name in after)
            return
        self.steps = trainer.global_step
        for name, average in self.averages.items():
            average.mul_(DECAY).add_(after[name].double(), alpha=1 - DECAY)


def weights(module: LitCausalLM) -> dict[str, torch.nn.Parameter]:
    return dict(module.causal_lm.named_parameters())


def averages_of(module: LitCausalLM) -> dict[str, Tensor]:
    states = module.trainer.optimizers[0].state
    return {
        name: states[weight][AVERAGE]
        for name, weight in weights(module).items()
        if AVERAGE in states.get(weight, {})
    }


@pytest.mark.parametrize(
    ("lm", "settings"),
    [
        # The last accumulation of an epoch of 10 micro-batches is incomplete.
        ({}, {"accumulate_grad_batches": 4}),
        ({"config_overrides": {"attention_dropout": 0.2}}, {"precision": "bf16-mixed"}),
        ({"config_overrides": {"attention_dropout": 0.2}}, {"gradient_clip_val": 0.1}),
    ],
)
def test_runs_the_model_with_the_average_of_its_weights(
    tiny: Tiny, lm: dict[str, Any], settings: dict[str, Any]
) -> None:
    taught = Taught()
    follow = Follow(taught)
    module = tiny.module(taught, lm=lm)
    tiny.trainer(callbacks=[follow], **settings).fit(module, datamodule=tiny.data())
    assert follow.steps == module.total_steps > 5
    assert follow.averages.keys() == averages_of(module).keys() == weights(module).keys()
    for name, average in averages_of(module).items():
        torch.testing.assert_close(average.double(), follow.averages[name], atol=1e-6, rtol=1e-5)
        assert not torch.equal(average, weights(module)[name])


def test_a_run_with_a_teacher_that_is_only_watched_is_the_plain_run(tiny: Tiny) -> None:
    states = []
    for regularizers in ([], [Taught()]):
        module = tiny.module(*regularizers)
        tiny.trainer().fit(module, datamodule=tiny.data())
        states.append(module.state_dict())
    # Averages are in no state dict, so that they are neither exported nor missed.
    torch.testing.assert_close(states[1], states[0], atol=1e-5, rtol=1e-5)


def test_divergence_from_the_teacher_is_that_of_its_logits(tiny: Tiny) -> None:
    divergences = []
    for head in ("torch", "naive"):
        trainer = tiny.trainer(logger=MetricsFile(tiny.folder / head), max_epochs=1)
        trainer.fit(tiny.module(MeanTeacher(), lm={"head": head}), datamodule=tiny.data())
        logged = read_metrics(tiny.folder / head)["mean_teacher/divergence"]
        divergences.append(logged.dropna().tolist())
    fused, naive = divergences
    assert max(naive) > 0.1
    # A teacher that starts as the model itself does not differ from it.
    assert naive[0] == pytest.approx(0.0, abs=1e-5)
    assert fused == pytest.approx(naive, rel=1e-3, abs=1e-5)


def test_adapters_alone_are_averaged(tiny: Tiny) -> None:
    taught = Taught()
    follow = Follow(taught)
    module = tiny.module(taught, lm={"lora": LoRAConfig(rank=2)})
    tiny.trainer(callbacks=[follow]).fit(module, datamodule=tiny.data())
    averages = averages_of(module)
    assert averages
    assert all("lora_" in name for name in averages)
    assert {name for name, weight in weights(module).items() if weight.requires_grad} == set(
        averages
    )


def test_a_parameter_that_never_gets_a_gradient_has_no_average() -> None:
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = torch.optim.AdamW([used, unused], lr=0.5)
    WeightAverage(make_llama(), optimizer, lambda count: torch.full_like(count, 0.5))  # type: ignore[arg-type]
    for _ in range(2):
        used.grad = torch.ones(2)
        optimizer.step()
    assert AVERAGE in optimizer.state[used]
    assert not optimizer.state.get(unused)
    # One that gets its first later is averaged from what it was.
    unused.grad = torch.ones(2)
    optimizer.step()
    torch.testing.assert_close(optimizer.state[unused][AVERAGE], (1 + unused.detach()) / 2)
