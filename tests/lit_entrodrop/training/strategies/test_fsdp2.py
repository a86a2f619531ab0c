"""Two real ranks under FSDP2 against one process."""

import pytest
import torch

from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.runs.metrics_file import read_metrics
from tests.helpers.runs import assert_same_curves, exported, fit
from tests.helpers.tiny import CONFIGS, Tiny, texts, write_corpus

FSDP2 = ["--config", str(CONFIGS / "strategy/fsdp2.yaml")]
ONE = ["--data.batch_size=8"]


@pytest.fixture
def larger(tiny: Tiny) -> Tiny:
    write_corpus(tiny.corpus, texts(60))
    return tiny


def test_adapters_a_frozen_reference_and_recomputing_equal_one_process(larger: Tiny) -> None:
    """Half precision, too, but for its rounding."""
    torch.manual_seed(0)
    initial = build_causal_lm(larger.lm()).hf_model
    initial.save_pretrained(larger.folder / "initial")
    pretrained = [f"--model.lm.pretrained={larger.folder / 'initial'}"]
    pretrained += ["--model.lm.architecture=null", f"--model.lm.tokenizer={larger.tokenizer}"]
    settings = [*pretrained, "--model.regularizers+=tests.helpers.plugins.ExcessLoss"]
    settings += ["--model.lm.lora.rank=2", "--model.lm.lora.dora=true"]
    settings += ["--model.lm.activation_checkpointing=true"]
    settings += ["--trainer.accumulate_grad_batches=2", "--trainer.gradient_clip_val=0.1"]
    # Rounding may turn its gradients, so that it is for full precision.
    bound = "--model.regularizers+=regularizers.WaveBound"
    one = fit(larger, "one", *settings, bound, *ONE)
    two = fit(larger, "two", *settings, bound, *FSDP2, world_size=2)
    assert read_metrics(two)["excess_loss/excess"].max() > 0
    assert_same_curves(two, one, 1e-5)
    torch.testing.assert_close(exported(two), exported(one), atol=1e-5, rtol=1e-4)

    half = [*settings, "--trainer.precision=bf16-mixed", "--model.lm.lora.dora=false"]
    one = fit(larger, "half", *half, *ONE)
    two = fit(larger, "halves", *half, *FSDP2, world_size=2)
    assert_same_curves(two, one, 1e-2)


def test_two_replicas_of_two_shards_in_host_memory_equal_four_shards(larger: Tiny) -> None:
    replicas = ["--trainer.strategy=lit_entrodrop.training.strategies.FSDP2Strategy"]
    replicas += ["--trainer.strategy.replicas=2", "--trainer.strategy.cpu_offload=true"]
    settings = ["--model.regularizers+=regularizers.EntroDrop", "--trainer.gradient_clip_val=0.1"]
    settings += ["--model.regularizers+=regularizers.WaveBound"]
    shards = fit(larger, "shards", *settings, *FSDP2, world_size=4)
    both = fit(larger, "both", *settings, *replicas, world_size=4)
    assert_same_curves(both, shards, 1e-5)
    torch.testing.assert_close(exported(both), exported(shards), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("tensor_parallel_size=2", "expected a multiple of .* 2 x 1, over all machines, got 1"),
        ("replicas=3", "expected a multiple of tensor_parallel_size x replicas, 1 x 3"),
        ("replicas=0", "replicas: expected a whole number of at least 1, got 0"),
    ],
)
def test_devices_that_cannot_be_arranged_are_refused(
    tiny: Tiny, setting: str, message: str
) -> None:
    strategy = ["--trainer.strategy=lit_entrodrop.training.strategies.FSDP2Strategy"]
    with pytest.raises(SystemExit, match=message):
        tiny.run("fit", *strategy, f"--trainer.strategy.{setting}", "--trainer.devices=1")
