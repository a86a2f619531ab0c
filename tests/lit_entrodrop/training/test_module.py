from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lit_entrodrop.model.clean_pass import forward_clean
from lit_entrodrop.runs.metrics_file import MetricsFile, read_metrics
from lit_entrodrop.training.module import LitCausalLM
from lit_entrodrop.training.optim import AdamW, LRSchedule, ParameterRule
from regularizers import (
    Constant,
    EmbeddingDropout,
    EntroDrop,
    Linear,
    Outputs,
    RandomTokenDropout,
    Regularizer,
    Sigmoid,
    TokenLoss,
    TrainingStep,
)
from regularizers.functional import is_document_start
from tests.helpers.killing import InterruptAt, Interrupted
from tests.helpers.plugins import ExcessLoss, Logits, MaskedConsistency, Repeat
from tests.helpers.tiny import Tiny, texts, write_corpus


def weights(module: LitCausalLM) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_equal(actual: LitCausalLM, expected: LitCausalLM, tolerance: float = 0.0) -> None:
    torch.testing.assert_close(
        actual.state_dict(), expected.state_dict(), atol=tolerance, rtol=tolerance
    )


def metrics(
    tiny: Tiny, module: LitCausalLM, data: dict[str, Any] | None = None, **settings: Any
) -> Any:
    """Fit and return what was logged."""
    folder = tiny.folder / "logged"
    trainer = tiny.trainer(logger=MetricsFile(folder), **settings)
    trainer.fit(module, datamodule=tiny.data(**(data or {})))
    return read_metrics(folder)


class Spy(L.Callback):
    """Call a function with the module and the batch at the end of each training batch."""

    def __init__(self, look: Callable[[LitCausalLM, Any], None]) -> None:
        self.look = look

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.look(pl_module, batch)


class Uneven(EntroDrop):
    """Weigh tokens unevenly, so that micro-batches differ in weight by far more than in length."""

    def __init__(self) -> None:
        super().__init__(target="loss", curriculum=0.5, entropy_source="online")

    def drop_mask(self, step: TrainingStep, generator: torch.Generator) -> Tensor:
        return step.input_ids % 3 != 0


def one_step(
    tiny: Tiny, batch_size: int, *regularizers: Regularizer, **settings: Any
) -> LitCausalLM:
    """Take a single optimizer step on all blocks."""
    data = tiny.data(batch_size=batch_size, packing=False)
    data.setup()
    batches = data.batches_per_epoch()
    module = tiny.module(
        *regularizers,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.5),
        lr_schedule=LRSchedule(warmup=0, decay="constant"),
    )
    limits = {"max_epochs": 1, "accumulate_grad_batches": batches, "precision": "64-true"}
    tiny.trainer(**{**limits, **settings}).fit(module, datamodule=data)
    assert module.trainer.global_step == 1
    return module


@pytest.mark.parametrize("plug_ins", [[], [Uneven]])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_accumulated_micro_batches_weigh_by_tokens(
    tiny: Tiny, plug_ins: list[type[Regularizer]], clip: float | None
) -> None:
    whole = one_step(tiny, 100, *(make() for make in plug_ins), gradient_clip_val=clip)
    parts = one_step(tiny, 3, *(make() for make in plug_ins), gradient_clip_val=clip)
    # Llama's norms compute in fp32, whatever the weights are.
    assert_equal(parts, whole, 1e-7)
    assert float(parts.step_weight) == 0


def test_incomplete_last_accumulation_weighs_by_tokens_too(tiny: Tiny) -> None:
    whole = one_step(tiny, 100)
    data = tiny.data(batch_size=3, packing=False)
    module = tiny.module(
        optimizer=lambda params: torch.optim.SGD(params, lr=0.5),
        lr_schedule=LRSchedule(warmup=0, decay="constant"),
    )
    tiny.trainer(max_epochs=1, accumulate_grad_batches=10_000, precision="64-true").fit(
        module, datamodule=data
    )
    assert module.trainer.global_step == 1
    assert_equal(module, whole, 1e-7)


def test_gradient_is_that_of_the_mean_over_tokens(tiny: Tiny) -> None:
    """One step of SGD against autograd on Transformers' own logits, document by document."""
    stepped = one_step(tiny, 100)
    data = tiny.data(packing=False)
    data.setup()
    plain = tiny.module()
    plain.trainer = tiny.trainer()
    plain.trainer.datamodule = data
    plain.configure_model()
    model = plain.causal_lm.unwrapped.double()
    losses = []
    for index in range(data.num_blocks("train")):
        row = data.blocks("train")[index]
        ids = row["input_ids"][row["document_ids"] >= 0][None]
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        losses.append(nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none"))
    torch.cat(losses).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        moved = stepped.state_dict()[f"causal_lm.hf_model.{name}"]
        torch.testing.assert_close(moved, parameter.detach() - 0.5 * parameter.grad)


def flops_of_a_step(tiny: Tiny, *regularizers: Regularizer) -> int:
    data = tiny.data(packing=False, batch_size=8)
    with FlopCounterMode(display=False) as counter:
        tiny.trainer(max_steps=1, limit_val_batches=0).fit(
            tiny.module(*regularizers), datamodule=data
        )
    return counter.get_total_flops()


def test_logits_are_computed_once_unless_losses_are_shaped(tiny: Tiny) -> None:
    class Shaped(Regularizer):
        def on_token_loss(self, token_loss: TokenLoss, outputs: Outputs, step: Any) -> TokenLoss:
            return token_loss

    tokens, dimensions, words = 8 * 16, 16, 320
    # The first run scores the validation split, which others find in the cache.
    flops_of_a_step(tiny)
    once = flops_of_a_step(tiny)
    assert flops_of_a_step(tiny, EntroDrop(target="loss")) == once
    # Weights that depend on this pass cost a second product to the logits.
    assert flops_of_a_step(tiny, Shaped()) - once == 2 * tokens * dimensions * words


def test_model_trains_in_train_mode_and_learns(tiny: Tiny) -> None:
    modes: list[bool] = []

    def look(module: LitCausalLM, batch: Any) -> None:
        modes.append(all(child.training for child in module.modules()))

    logged = metrics(tiny, tiny.module(), max_epochs=4, callbacks=[Spy(look)])
    assert modes
    assert all(modes)
    losses = logged["train/loss"].to_numpy()
    assert losses[-1] < 0.8 * losses[0]
    validation = logged["val/loss"].dropna().to_numpy()
    assert validation[-1] < validation[0]


def test_regularizer_is_applied_in_fit_and_not_in_validation(tiny: Tiny) -> None:
    seen: list[bool] = []

    class Record(RandomTokenDropout):
        def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
            changed = super().on_embeddings(embeddings, step)
            zero = (changed == 0).all(-1) & step.alterable
            seen.append(torch.equal(zero, self.drop_mask(step, step.generator())))
            return changed

    logged = metrics(tiny, tiny.module(Record(curriculum=0.5)))
    assert len(seen) == 2 * tiny_batches(tiny)
    assert all(seen)
    assert logged["record/drop_rate"].mean() == pytest.approx(0.5, abs=0.06)
    plain = metrics(Tiny(tiny.folder / "plain", tiny.tokenizer, tiny.corpus), tiny.module())
    assert not np.allclose(logged["train/loss"], plain["train/loss"])


def tiny_batches(tiny: Tiny) -> int:
    data = tiny.data()
    data.setup()
    return data.batches_per_epoch()


def test_steps_have_their_position_in_the_run(tiny: Tiny) -> None:
    seen: list[tuple[float, int, int, int, int]] = []

    class Record(RandomTokenDropout):
        def on_loss(self, loss: Tensor, outputs: Any, step: TrainingStep) -> Tensor:
            place = (step.global_step, step.epoch, step.micro_batch)
            seen.append((step.progress, *place, step.generator().initial_seed()))
            assert (step.seed, step.rank) == (7, 0)
            assert step.vocabulary.size == 320
            return loss

    batches = tiny_batches(tiny)
    assert batches % 3 == 1, "the last step of an epoch shall be incomplete"
    module = tiny.module(Record(curriculum=0.5), seed=7)
    tiny.trainer(accumulate_grad_batches=3).fit(module, datamodule=tiny.data())
    per_epoch = batches // 3 + 1
    expected = [
        (steps / (2 * per_epoch), steps, epoch, batch % 3)
        for epoch in range(2)
        for batch in range(batches)
        for steps in [epoch * per_epoch + batch // 3]
    ]
    assert [row[:4] for row in seen] == expected
    assert len({row[4] for row in seen}) == len(seen)


def test_dropped_inputs_change_the_forward_as_by_hand(tiny: Tiny) -> None:
    """The loss of the first step is that of a model fed the masked embeddings by hand."""
    steps: list[tuple[Tensor, Any]] = []

    class Record(RandomTokenDropout):
        def drop_mask(self, step: TrainingStep, generator: torch.Generator) -> Tensor:
            dropped = super().drop_mask(step, generator)
            steps.append((dropped, step))
            return dropped

    logged = metrics(tiny, tiny.module(Record(curriculum=0.5)), max_steps=1)
    dropped, step = steps[0]
    assert dropped.any()
    module = tiny.module()
    module.trainer = tiny.trainer()
    module.trainer.datamodule = tiny.data()
    module.data.setup()
    module.configure_model()
    model = module.causal_lm.unwrapped
    embeddings = model.get_input_embeddings()(step.input_ids) * ~dropped[..., None]
    starts = is_document_start(step.document_ids)
    places = torch.arange(16).expand_as(step.input_ids)
    position_ids = places - torch.where(starts, places, 0).cummax(1).values
    logits = model(inputs_embeds=embeddings, position_ids=position_ids, use_cache=False).logits
    labels = step.labels.masked_fill(starts, -100)
    expected = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert logged["train/loss"].iloc[0] == pytest.approx(expected.item(), rel=1e-5)


def test_last_epoch_drops_nothing_at_first_and_something_then(tiny: Tiny) -> None:
    logged = metrics(tiny, tiny.module(EntroDrop(curriculum=0.8)), max_epochs=2)
    rates = logged.dropna(subset=["train/loss"]).groupby("epoch")["entro_drop/drop_rate"]
    assert rates.max()[0] == 0
    assert rates.mean()[1] == pytest.approx(0.5 * 0.8, abs=0.12)


def test_recorded_entropies_are_those_of_the_corrupted_pass(tiny: Tiny) -> None:
    passes: list[dict[str, Tensor]] = []

    class Record(EmbeddingDropout):
        def on_token_loss(self, token_loss: Any, outputs: Any, step: TrainingStep) -> Any:
            passes.append({"entropy": outputs.entropy, "ids": step.input_ids})
            return token_loss

    stored: list[Tensor] = []
    clean: list[Tensor] = []

    def look(module: LitCausalLM, batch: Any) -> None:
        stored.append(module.entropies.stores["train"].lookup(batch["block_id"]))
        with torch.no_grad():
            clean.append(forward_clean(module.causal_lm, batch).entropy)

    module = tiny.module(
        EntroDrop(curriculum=0.0),
        Record(0.5, "element"),
        optimizer=lambda params: torch.optim.SGD(params, lr=0.0),
    )
    tiny.trainer(max_epochs=1, callbacks=[Spy(look)]).fit(module, datamodule=tiny.data())
    for kept, of_pass, of_clean in zip(stored, passes, clean, strict=True):
        torch.testing.assert_close(
            kept, of_pass["entropy"].half().float(), atol=0, rtol=0, equal_nan=True
        )
        assert not torch.allclose(kept, of_clean, atol=1e-2, equal_nan=True)


def test_workers_change_nothing(tiny: Tiny) -> None:
    runs = []
    for workers in (0, 1):
        runs.append(tiny.module(EntroDrop(curriculum=0.8)))
        tiny.trainer().fit(runs[-1], datamodule=tiny.data(num_workers=workers))
    assert_equal(*runs)


def first_entropies(tiny: Tiny, source: Any, **settings: Any) -> tuple[Tensor, Tensor]:
    """Return what a regularizer sees in its first step, and the rate of dropping."""
    seen: list[Tensor] = []

    class Record(EntroDrop):
        def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
            assert step.entropy is not None
            seen.append(step.entropy)
            return super().on_embeddings(embeddings, step)

    module = tiny.module(Record(curriculum=1.0, entropy_source=source), **settings)
    logged = metrics(tiny, module, max_steps=3)
    return seen[0], logged["record/drop_rate"].dropna().to_numpy()


def test_reference_and_online_agree_at_the_first_step(tiny: Tiny) -> None:
    online, online_rates = first_entropies(tiny, "online")
    reference, rates = first_entropies(tiny, "reference")
    assert torch.equal(online.isnan(), reference.isnan())
    assert (~online.isnan()).sum() > 30
    torch.testing.assert_close(reference, online, atol=2e-3, rtol=0, equal_nan=True)
    assert rates[0] == pytest.approx(online_rates[0])
    assert rates[0] > 0


def test_online_entropies_ignore_the_models_own_dropout(tiny: Tiny) -> None:
    noisy, _ = first_entropies(tiny, "online", lm={"config_overrides": {"attention_dropout": 0.5}})
    plain, _ = first_entropies(tiny, "online")
    torch.testing.assert_close(noisy, plain, equal_nan=True)


def test_reference_entropies_are_cached_by_weights(tiny: Tiny) -> None:
    first_entropies(tiny, "reference")
    files = {path: path.stat().st_mtime_ns for path in (tiny.folder / "cache/entropy").iterdir()}
    assert len(files) == 3  # validation, train, and the sample of it
    first_entropies(tiny, "reference")
    again = {path: path.stat().st_mtime_ns for path in (tiny.folder / "cache/entropy").iterdir()}
    assert again == files
    first_entropies(tiny, "reference", weights=1)
    assert len(list((tiny.folder / "cache/entropy").iterdir())) == 6


def test_second_forward_serves_a_penalty(tiny: Tiny) -> None:
    logged = metrics(tiny, tiny.module(MaskedConsistency(5.0)), max_epochs=4)
    gaps = logged["masked_consistency/gap"].dropna().to_numpy()
    plain = Tiny(tiny.folder / "plain", tiny.tokenizer, tiny.corpus)
    weak = metrics(plain, tiny.module(MaskedConsistency(0.0)), max_epochs=4)
    assert gaps[0] > 0
    assert gaps[-5:].mean() < 0.7 * weak["masked_consistency/gap"].dropna().to_numpy()[-5:].mean()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_second_forward_repeats_the_first(tiny: Tiny, dropout: float) -> None:
    """The masks of regularizers are those of the first pass; only the model's dropout differs."""
    module = tiny.module(
        RandomTokenDropout(curriculum=0.5),
        Repeat(),
        lm={"config_overrides": {"attention_dropout": dropout}},
    )
    logged = metrics(tiny, module, max_steps=2)
    difference = logged["repeat/difference"].max()
    assert (difference > 0.01) if dropout else (difference < 1e-6)
    divergence = logged["repeat/divergence"].max()
    assert (divergence > 1e-4) if dropout else (divergence < 1e-6)
    assert logged["random_token_dropout/drop_rate"].max() > 0


@pytest.fixture
def pretrained(tiny: Tiny) -> Path:
    """Save the initial model of the tests as a folder of Transformers."""
    module = tiny.module()
    module.trainer = tiny.trainer()
    module.trainer.datamodule = tiny.data()
    module.data.setup()
    module.configure_model()
    module.causal_lm.unwrapped.save_pretrained(tiny.folder / "pretrained")
    return tiny.folder / "pretrained"


def test_reference_model_is_frozen_and_not_saved(tiny: Tiny, pretrained: Path) -> None:
    module = tiny.module(ExcessLoss(), lm={"pretrained": str(pretrained)})
    names = set(tiny.module().state_dict())
    logged = metrics(tiny, module, max_epochs=2)
    excess = logged["excess_loss/excess"].dropna().to_numpy()
    assert excess[0] < 1e-5
    assert excess[-1] > 0.1
    assert names <= set(module.state_dict())
    assert not any("frozen" in name or "reference" in name for name in module.state_dict())
    [reference] = module.reference.score.args  # type: ignore[union-attr]
    assert not any(part.training for part in reference.modules())
    frozen = set(reference.parameters())
    assert not any(parameter.requires_grad for parameter in frozen)
    assert frozen.isdisjoint(module.parameters())
    groups = module.trainer.optimizers[0].param_groups
    assert frozen.isdisjoint(parameter for group in groups for parameter in group["params"])


def test_another_reference_model_can_be_named(tiny: Tiny, pretrained: Path) -> None:
    module = tiny.module(ExcessLoss(), reference=str(pretrained), weights=1)
    logged = metrics(tiny, module, max_steps=1)
    assert logged["excess_loss/excess"].iloc[0] > 0.1


def test_reference_of_random_weights_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=r"model\.reference: expected a pretrained model"):
        tiny.trainer().fit(tiny.module(ExcessLoss()), datamodule=tiny.data())


def test_logits_are_provided_where_required(tiny: Tiny) -> None:
    assert len(metrics(tiny, tiny.module(Logits()), max_steps=2)["train/loss"].dropna()) == 2


def test_matrices_decay_and_norms_do_not(tiny: Tiny) -> None:
    """With a zero gradient, decay alone moves the weights."""
    data = tiny.data()
    module = tiny.module(
        EntroDrop(curriculum=0.0, entropy_source="online"),
        optimizer=lambda params: AdamW(params, lr=0.1, weight_decay=0.5),
        lr_schedule=LRSchedule(warmup=0, decay="constant"),
    )

    class ZeroGradient(L.Callback):
        before: dict[str, Tensor]

        def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
            self.before = weights(pl_module)

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            for parameter in pl_module.parameters():
                parameter.grad.zero_()

    zero = ZeroGradient()
    # The module's own hook only scales, so that zero stays zero.
    tiny.trainer(max_steps=1, callbacks=[zero]).fit(module, datamodule=data)
    for name, tensor in module.state_dict().items():
        factor = 0.95 if tensor.ndim == 2 else 1.0
        torch.testing.assert_close(tensor, zero.before[name] * factor)


def test_rates_and_decays_of_all_groups_follow_their_schedules(tiny: Tiny) -> None:
    rates: list[list[float]] = []
    decays: list[list[float]] = []

    class Watched(AdamW):
        def step(self, closure: Any = None) -> Any:
            def watching() -> Any:
                loss = closure()
                rates.append([group["lr"] for group in self.param_groups])
                decays.append([group["weight_decay"] for group in self.param_groups])
                return loss

            return super().step(watching)

    module = tiny.module(
        EmbeddingDropout(Linear(end=0.5)),
        optimizer=lambda params: Watched(params, lr=0.01),
        lr_schedule=LRSchedule(warmup=4, decay="linear", final=0.1),
        weight_decay_schedule=Linear(end=0.4),
        groups=[ParameterRule("q_proj", lr=0.5, weight_decay=2.0)],
    )
    logged = metrics(tiny, module, max_epochs=3).dropna(subset="learning_rate")
    total = 3 * tiny_batches(tiny)
    used = np.array(rates)
    assert used.shape == (total, 3)
    np.testing.assert_array_equal(used, used[:, 2:] * [0.5, 1, 1])
    used = used[:, 1:]
    np.testing.assert_allclose(used[:4, 0], [0.0025, 0.005, 0.0075, 0.01])
    progress = (np.arange(4, total) - 4) / (total - 4)
    np.testing.assert_allclose(used[4:, 0], 0.01 * (0.1 + 0.9 * (1 - progress)))
    # The log has the values that each step used, counted from 1.
    assert logged.index.tolist() == list(range(1, total + 1))
    # Older pandas rounds the last digit of a number in a file.
    np.testing.assert_allclose(logged["learning_rate"], used[:, 0], rtol=1e-12)
    expected = 0.5 * np.arange(total) / total
    np.testing.assert_allclose(logged["embedding_dropout/strength"], expected)
    np.testing.assert_allclose(logged["weight_decay"], 0.8 * expected)
    np.testing.assert_allclose(decays, np.outer(0.8 * expected, [2, 1, 0]))


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_equals_a_plain_computation(tiny: Tiny, split: str) -> None:
    module, data = tiny.module(), tiny.data(validation=0.25, test=0.25, clean_train_blocks=0)
    trainer = tiny.trainer()
    loop = {"val": trainer.validate, "test": trainer.test}[split]
    [measured] = loop(module, datamodule=data, verbose=False)
    model = module.causal_lm.unwrapped.double().eval()
    blocks = data.blocks({"val": "validation", "test": "test"}[split])
    losses, correct = [], []
    for index in range(len(blocks)):
        row = blocks[index]
        for document in row["document_ids"].unique():
            if document < 0:
                continue
            ids = row["input_ids"][row["document_ids"] == document]
            logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
            losses.append(nn.functional.cross_entropy(logits, ids[1:], reduction="none").detach())
            correct.append(logits.argmax(-1) == ids[1:])
    loss = torch.cat(losses).mean().item()
    assert len(torch.cat(losses)) > 50
    assert measured[f"{split}/loss"] == pytest.approx(loss, rel=1e-5)
    assert measured[f"{split}/perplexity"] == pytest.approx(np.exp(loss), rel=1e-5)
    assert measured[f"{split}/accuracy"] == pytest.approx(torch.cat(correct).double().mean().item())


def test_validation_in_fit_splits_the_loss_by_entropy(tiny: Tiny) -> None:
    logged = metrics(tiny, tiny.module(), max_epochs=4, num_sanity_val_steps=-1)
    rows = logged.dropna(subset=["val/loss"])
    assert len(rows) == 5
    assert rows.index[0] == 0
    buckets = rows[[f"val/loss_{name}_entropy" for name in ("low", "mid", "high")]]
    assert (rows["val/loss"] > buckets.min(axis=1)).all()
    assert (rows["val/loss"] < buckets.max(axis=1)).all()
    gap = rows["val/loss_high_entropy"] - rows["clean_train/loss_high_entropy"]
    np.testing.assert_allclose(rows["gap/loss_high_entropy"], gap, atol=1e-6)
    assert (rows["gap/loss"].diff().dropna() > 0).mean() > 0.5


def test_clean_train_loss_is_that_of_the_sample_without_regularizers(tiny: Tiny) -> None:
    module = tiny.module(RandomTokenDropout(curriculum=0.9))
    data = tiny.data(clean_train_blocks=3)
    trainer = tiny.trainer(max_epochs=1)
    trainer.fit(module, datamodule=data)
    logged = trainer.callback_metrics["clean_train/loss"].item()
    blocks, total, tokens = data.blocks("clean_train"), 0.0, 0
    assert len(blocks) == 3
    for index in range(3):
        row = blocks[index]
        ids = {name: row[name][None] for name in ("input_ids", "position_ids")}
        logits = module.causal_lm.unwrapped.eval()(**ids, use_cache=False).logits[0, :-1]
        labels = row["labels"][1:]
        total += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        tokens += int((labels >= 0).sum())
    assert logged == pytest.approx(total / tokens, rel=1e-5)


def test_forgetting_is_reported_on_a_general_corpus(tiny: Tiny) -> None:
    general = write_corpus(tiny.folder / "general.jsonl", texts(30, seed=9))
    data = tiny.data(forgetting=str(general), forgetting_tokens=100)
    trainer = tiny.trainer(max_epochs=1)
    trainer.fit(tiny.module(), datamodule=data)
    assert data.blocks("forgetting").num_tokens <= 100
    assert {"forgetting/loss", "forgetting/loss_low_entropy"} <= set(trainer.callback_metrics)


def test_strength_of_each_regularizer_is_logged(tiny: Tiny) -> None:
    logged = metrics(tiny, tiny.module(EntroDrop(curriculum=Linear(end=0.8))), max_epochs=2)
    strengths = logged["entro_drop/strength"].dropna()
    assert strengths.is_monotonic_increasing
    last = strengths.index[-1]
    assert strengths.iloc[-1] == pytest.approx(0.8 * (last - 1) / last)


def test_prediction_returns_nll_and_entropy(tiny: Tiny) -> None:
    module, data = tiny.module(), tiny.data(predict_split="train")
    batches = tiny.trainer().predict(module, datamodule=data)
    assert batches is not None
    assert len(batches) == -(-data.num_blocks("train") // 4)
    for batch in batches:
        assert batch["nll"].shape == batch["entropy"].shape == batch["input_ids"].shape
        assert batch["nll"].dtype == torch.float32
        assert torch.equal(
            batch["entropy"].isnan(),
            is_document_start(batch["document_ids"]) | (batch["document_ids"] < 0),
        )


def test_other_data_module_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=r"expected lit_entrodrop\.data\.TextDataModule"):
        tiny.trainer().fit(tiny.module(), train_dataloaders=[{"x": torch.zeros(1)}])


REGULARIZED: dict[str, Callable[[], Iterator[Regularizer]]] = {
    "sequence": lambda: iter(
        [EntroDrop(curriculum=Sigmoid(max=0.9)), EmbeddingDropout(0.2, "element")]
    ),
    "corpus": lambda: iter([EntroDrop(curriculum=Constant(0.6), scope="corpus")]),
    "reference": lambda: iter([EntroDrop(entropy_source="reference", replacement="unigram_token")]),
}


def resumable(tiny: Tiny, name: str, **settings: Any) -> tuple[LitCausalLM, L.Trainer]:
    """Make a run of three epochs with noise of every kind, except the model's own dropout."""
    module = tiny.module(*REGULARIZED[name]())
    defaults = {
        "max_epochs": 3,
        "accumulate_grad_batches": 2,
        "gradient_clip_val": 1.0,
        "enable_checkpointing": True,
        "logger": MetricsFile(tiny.folder / "logs"),
    }
    return module, tiny.trainer(**{**defaults, **settings})


@pytest.mark.parametrize("where", ["mid", "end"])
@pytest.mark.parametrize("name", REGULARIZED)
def test_resumed_run_ends_with_the_same_bits(tiny: Tiny, name: str, where: str) -> None:
    data = tiny.data()
    data.setup()
    per_epoch = -(-data.batches_per_epoch() // 2)
    assert per_epoch >= 4
    steps = per_epoch + per_epoch // 2 if where == "mid" else 2 * per_epoch
    whole, trainer = resumable(tiny, name, enable_checkpointing=False)
    trainer.fit(whole, datamodule=tiny.data())
    folder = tiny.folder / "checkpoints"
    saving = (
        ModelCheckpoint(folder, "saved", every_n_train_steps=steps)
        if where == "mid"
        else ModelCheckpoint(folder, "saved", monitor="val/loss", mode="min", save_last=True)
    )
    killed, trainer = resumable(tiny, name, callbacks=[saving, InterruptAt(steps + 1)])
    with pytest.raises(Interrupted):
        trainer.fit(killed, datamodule=tiny.data())
    path = folder / ("saved.ckpt" if where == "mid" else "last.ckpt")
    assert torch.load(path, weights_only=True)["global_step"] == steps
    resumed, trainer = resumable(tiny, name, enable_checkpointing=False)
    # Whatever the new process has drawn before must not matter.
    torch.manual_seed(99)
    trainer.fit(resumed, datamodule=tiny.data(), ckpt_path=path, weights_only=True)
    assert trainer.global_step == 3 * per_epoch
    assert_equal(resumed, whole)
    for split, store in whole.entropies.stores.items():
        torch.testing.assert_close(
            resumed.entropies.stores[split].values, store.values, atol=0, rtol=0, equal_nan=True
        )


def test_rate_that_is_a_tensor_warms_up_to_its_peak(tiny: Tiny) -> None:
    """Schedules change such a rate in place."""
    folder = tiny.folder / "logs"
    module = tiny.module(
        optimizer=lambda params: torch.optim.AdamW(params, lr=torch.tensor(0.01)),
        lr_schedule=LRSchedule(warmup=5, decay="constant"),
    )
    tiny.trainer(max_epochs=1, logger=MetricsFile(folder)).fit(module, datamodule=tiny.data())
    assert read_metrics(folder)["learning_rate"].max() == pytest.approx(0.01)


class Choosy(Regularizer):
    """Drop every label of some optimizer steps, and of some micro-batches of the others."""

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        dropped = step.global_step % 3 == 1 or (step.global_step + step.micro_batch) % 2 == 0
        return torch.zeros_like(token_weight) if dropped else token_weight


@pytest.mark.filterwarnings("ignore:regularizers. in some optimizer steps no token counted")
def test_a_step_without_a_label_is_skipped_and_counted(tiny: Tiny) -> None:
    after: dict[int, dict[str, Tensor]] = {}
    look = Spy(lambda module, _: after.update({module.trainer.global_step: weights(module)}))
    settings: dict[str, Any] = {"max_epochs": -1, "max_steps": 8, "accumulate_grad_batches": 2}
    logged = metrics(tiny, tiny.module(Choosy()), callbacks=[look], **settings)
    for step in range(1, 8):
        skipped = step % 3 == 1
        moved = [not torch.equal(after[step][name], after[step + 1][name]) for name in after[step]]
        assert any(moved) == (not skipped)
        row = logged.loc[step + 1]
        assert row.isna()["train/loss"] == skipped
        assert row["train/skipped_steps"] == 1 if skipped else row.isna()["train/skipped_steps"]
