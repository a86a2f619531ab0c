"""Two real ranks under every strategy against one process."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

import tests.helpers.deepspeed_cpu  # noqa: F401  as early as may be, so that ranks fork with it
from lit_entrodrop.runs.checkpoints.averages import Weights
from lit_entrodrop.runs.checkpoints.reading import SafeReader
from lit_entrodrop.runs.metrics_file import read_metrics
from tests.helpers.runs import assert_same_curves, exported, fit, validated
from tests.helpers.tiny import CONFIGS, Tiny, texts, write_corpus

# All low-entropy tokens become zero vectors: one process cannot draw the random numbers of two.
ENTRODROP = [
    "--model.regularizers+=regularizers.EntroDrop",
    "--model.regularizers.curriculum=1.0",
    "--model.regularizers.replacement=zero",
]
EVERYTHING = [
    *ENTRODROP,
    "--trainer.accumulate_grad_batches=2",
    "--trainer.gradient_clip_val=0.5",
    "--model.optimizer.weight_decay=0.1",
    "--trainer.max_epochs=2",
    "--model.groups=[{match: lm_head, lr: 0.5}, {match: 0.self_attn.q_proj, freeze: true}]",
    "--model.layer_lr_decay=0.9",
    "--model.weight_decay_schedule=regularizers.Linear",
    "--model.weight_decay_schedule.init_args.end=0.5",
]
EIGHT_BITS = [
    "--model.optimizer=bitsandbytes.optim.AdamW8bit",
    "--model.optimizer.init_args.lr=0.01",
    # Smaller tensors have 32 bits.
    "--model.optimizer.init_args.min_8bit_size=256",
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=4",
    "--trainer.limit_val_batches=1",
]
# DeepSpeed refuses it.
AVERAGE = "--model.average={kind: lawa, window: 2, every: 1}"
ONE = "--data.batch_size=8"
STRATEGY = "--trainer.strategy.class_path"
ON_CPU = f"{STRATEGY}=tests.helpers.deepspeed_cpu.DeepSpeedOnCPU"
# Tiny parameters would else stay whole on every rank.
SHARE_OUT_ALL = (
    "--trainer.strategy.config={zero_optimization: {stage3_param_persistence_threshold: 0}}"
)
STRATEGIES = {
    "ddp": ["--config", str(CONFIGS / "strategy/ddp.yaml")],
    "fsdp2": ["--config", str(CONFIGS / "strategy/fsdp2.yaml")],
    "deepspeed_zero2": [ON_CPU, "--trainer.strategy.stage=2"],
    "deepspeed_zero3": [ON_CPU, "--trainer.strategy.stage=3", SHARE_OUT_ALL],
    "deepspeed_zero3_offload": [ON_CPU, "--trainer.strategy.offload=true", SHARE_OUT_ALL],
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Tiny:
    folder = tmp_path_factory.mktemp("equivalence")
    return Tiny(folder, tiny_tokenizer, write_corpus(folder / "corpus.jsonl", texts(90)))


@pytest.fixture(scope="module")
def one(corpus: Tiny) -> Path:
    run = fit(corpus, "one", *EVERYTHING, AVERAGE, ONE)
    assert len(read_metrics(run)["train/loss"].dropna()) >= 8
    assert read_metrics(run)["entro_drop/drop_rate"].max() > 0.2
    unclipped = fit(corpus, "unclipped", *EVERYTHING, ONE, "--trainer.gradient_clip_val=null")
    with pytest.raises(AssertionError):
        assert_same_curves(run, unclipped, 1e-4)
    return run


def assert_shared_out(checkpoint: Path) -> None:
    """Each rank has written its share of optimizer states."""
    sizes = Counter(
        {shard: shard.stat().st_size for shard in checkpoint.glob("*/*optim_states.pt")}
    )
    if not sizes:
        # Beside tensors, the first rank writes the settings of each parameter.
        for index, place in SafeReader(checkpoint).read_metadata().storage_data.items():
            if index.offset is not None:
                sizes[place.relative_path] += place.length
    assert len(sizes) == 2
    assert max(sizes.values()) < 0.65 * sizes.total()


@pytest.mark.parametrize("name", STRATEGIES)
def test_two_ranks_train_and_resume_as_one_process_does(name: str, corpus: Tiny, one: Path) -> None:
    averages = name in ("ddp", "fsdp2")
    training = [*EVERYTHING, *STRATEGIES[name], *([AVERAGE] * averages)]
    two = fit(corpus, name, *training, world_size=2)
    assert_same_curves(two, one, 1e-5)
    torch.testing.assert_close(exported(two), exported(one), atol=1e-5, rtol=1e-4)
    if name != "ddp":
        assert_shared_out(two / "checkpoints" / "last.ckpt")
    # One process evaluates what the strategy wrote, and two ranks under it what one process did.
    for run, arguments, ranks in ((two, [], 1), (one, STRATEGIES[name], 2)):
        column = "val_average/loss" if averages or run is one else "val/loss"
        weights = f"--weights={'averaged' if averages or run is one else 'raw'}"
        loss = pytest.approx(read_metrics(one)[column].iloc[-1], rel=1e-5)
        assert validated(corpus, run, *arguments, weights, world_size=ranks) == loss
    chosen: list[Weights] = ["raw", *(["averaged"] * averages)]  # type: ignore[list-item]

    told = ["--trainer.callbacks+", "tests.helpers.plugins.TellToEnd"]
    told += ["--trainer.callbacks.rank=1", "--trainer.callbacks.step=5"]
    ended = fit(corpus, f"{name}_again", *training, *told, world_size=2, status=143)
    shutil.copytree(ended, corpus.folder / f"{name}_alone", symlinks=True)
    again = fit(corpus, f"{name}_again", *training, "--ckpt_path=last", world_size=2)
    for each in chosen:
        torch.testing.assert_close(exported(again, each), exported(two, each), atol=0, rtol=0)
    if name == "ddp":
        training = [*EVERYTHING, AVERAGE]
    resume = [*training, "--ckpt_path=last", ONE]
    alone = corpus.run_ranks("fit", *resume, root=f"{name}_alone", world_size=1)
    for each in chosen:
        torch.testing.assert_close(exported(alone, each), exported(two, each), atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def adapting(one: Path) -> list[str]:
    import peft  # noqa: F401  so that ranks fork with it

    exported(one)
    return [
        "--model.lm.architecture=null",
        f"--model.lm.pretrained={one / 'exported'}",
        "--model.lm.lora.rank=4",
        "--model.lm.lora.rslora=true",
        "--model.lm.lora.loraplus_lr_ratio=4",
        "--model.lm.lora.init=orthogonal",
        "--model.lm.lora.modules_to_save=[embed_tokens]",
        "--model.lm.activation_checkpointing=true",
        "--model.regularizers+=tests.helpers.plugins.ExcessLoss",
        "--model.regularizers+=tests.helpers.plugins.MaskedConsistency",
        "--trainer.gradient_clip_val=0.5",
        # Of ZeRO-3, a step of all passes takes half a second.
        "--trainer.limit_train_batches=2",
        "--trainer.limit_val_batches=1",
    ]


@pytest.fixture(scope="module")
def pair(corpus: Tiny, adapting: list[str]) -> Path:
    return fit(corpus, "pair", *adapting, *STRATEGIES["ddp"], world_size=2)


# Offloading shards as ZeRO-3 does. The frozen model is a copy, or the model without its adapters.
@pytest.mark.parametrize(
    ("name", "copied"),
    [
        ("fsdp2", False),
        ("deepspeed_zero3_offload", False),
        ("deepspeed_zero3_offload", True),
    ],
)
def test_adapters_a_second_pass_and_a_frozen_model_are_sharded_too(
    name: str, copied: bool, corpus: Tiny, one: Path, adapting: list[str], pair: Path
) -> None:
    copy = corpus.folder / "copy"
    if copied:
        shutil.copytree(one / "exported", copy)
    reference = [f"--model.reference={copy}"] * copied
    root = f"{name}_adapting_{copied}"
    two = fit(corpus, root, *adapting, *reference, *STRATEGIES[name], world_size=2)
    assert_same_curves(two, pair, 1e-5)


@pytest.fixture(scope="module")
def one_with_8_bits(corpus: Tiny) -> Path:
    return fit(corpus, "one_with_8_bits", *EIGHT_BITS, ONE)


# ZeRO-2 flattens the weights, so that its blocks of 256 have other scales.
@pytest.mark.parametrize(("name", "tolerance"), [("ddp", 1e-5), ("deepspeed_zero2", 1e-3)])
def test_moments_of_8_bits_train_on_two_ranks(
    name: str, tolerance: float, corpus: Tiny, one_with_8_bits: Path
) -> None:
    two = fit(corpus, f"{name}_with_8_bits", *EIGHT_BITS, *STRATEGIES[name], world_size=2)
    assert_same_curves(two, one_with_8_bits, tolerance)
