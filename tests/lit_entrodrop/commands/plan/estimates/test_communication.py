"""Bytes that ranks send: computed, against collectives counted in real steps."""

import json
from dataclasses import replace

import pytest

import tests.helpers.deepspeed_cpu  # noqa: F401  as early as may be, so that ranks fork with it
from lit_entrodrop.commands.plan.estimates.communication import Ring, Traffic, step_bytes
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.sizes import sizes_of
from tests.helpers.runs import fit
from tests.helpers.tiny import Tiny, texts, write_corpus

SIZES = sizes_of(build_on_meta(LMConfig()))
BLOCK, BATCH = 16, 4
STRATEGY = "--trainer.strategy.class_path"
FSDP2 = f"{STRATEGY}=lit_entrodrop.training.strategies.FSDP2Strategy"
TENSOR = [FSDP2, "--trainer.strategy.tensor_parallel_size=2"]
REPLICAS = [FSDP2, "--trainer.strategy.replicas=2"]
ON_CPU = f"{STRATEGY}=tests.helpers.deepspeed_cpu.DeepSpeedOnCPU"
# As if the model were larger than what DeepSpeed keeps between forward and backward.
NOTHING_KEPT = "--trainer.strategy.config=" + json.dumps(
    {
        "zero_optimization": {
            "stage3_param_persistence_threshold": 0,
            "stage3_max_reuse_distance": 0,
            "stage3_max_live_parameters": 1,
            "stage3_prefetch_bucket_size": 1,
        }
    }
)
RECOMPUTED = "--model.lm.activation_checkpointing=true"
TWICE = "--trainer.accumulate_grad_batches=2"


@pytest.mark.parametrize(
    ("strategy", "ranks", "flags", "settings"),
    [
        ("ddp", 2, ["--trainer.strategy=ddp", TWICE], {"accumulate": 2}),
        (
            "deepspeed_zero2",
            2,
            [ON_CPU, "--trainer.strategy.stage=2", TWICE],
            {"accumulate": 2},
        ),
        ("deepspeed_zero3", 2, [ON_CPU, "--trainer.strategy.stage=3", NOTHING_KEPT], {}),
        (
            "fsdp2",
            4,
            [*REPLICAS, TWICE, RECOMPUTED],
            {"replicas": 2, "accumulate": 2, "recomputed": True},
        ),
        (
            "fsdp2_tp",
            4,
            [*TENSOR, RECOMPUTED],
            {"tensor_parallel_size": 2, "recomputed": True},
        ),
    ],
    ids=["ddp", "zero2", "zero3", "hsdp", "tp"],
)
def test_ranks_send_what_is_computed(
    tiny: Tiny, strategy: str, ranks: int, flags: list[str], settings: dict[str, int]
) -> None:
    write_corpus(tiny.corpus, texts(90))
    file = tiny.folder / "traffic.json"
    flags = [*flags, "--trainer.max_steps=2", "--trainer.precision=bf16-mixed"]
    flags += ["--trainer.callbacks+=tests.helpers.traffic.CountTraffic"]
    flags += [f"--trainer.callbacks.file={file}", "--trainer.num_sanity_val_steps=0"]
    flags += ["--model.lm.config_overrides={num_key_value_heads: 2, tie_word_embeddings: false}"]
    fit(tiny, "run", *flags, world_size=ranks)
    sent = json.loads(file.read_text())

    overrides = {"num_key_value_heads": 2, "tie_word_embeddings": False}
    sizes = sizes_of(build_on_meta(tiny.lm(config_overrides=overrides)))
    expected = step_bytes(
        strategy,
        sizes,
        ranks,
        8,
        BLOCK * BATCH,
        **settings,
    )
    # Shards are padded, and sums for the losses are sent too.
    assert sum(sent.values()) == pytest.approx(expected.intra_node, rel=5e-3)
    assert expected.inter_node == 0


def test_a_node_sends_out_as_little_as_rings_can() -> None:
    # Of 800 bytes a device lacks 750; eight devices of a node fetch them together.
    assert Ring(16, 1, 8).gather(800) == Traffic(750 * 7 / 8, 750 / 8)
    assert Ring(8, 1, 8).gather(800) == Traffic(700, 0)
    # Each device has its only partners in other nodes.
    assert Ring(4, 8, 8).all_reduce(800) == Traffic(0, 1200)
    assert Ring(1, 1, 8).all_reduce(800) == Traffic(0, 0)


def test_replicas_of_a_node_spare_the_network() -> None:
    def sent(**settings: int) -> Traffic:
        sizes = replace(SIZES, parameters=8_000_000_000, around=0)
        return step_bytes("fsdp2", sizes, 64, 8, 4096, **settings)

    whole, copies = sent(), sent(replicas=8)
    assert copies.inter_node == pytest.approx(7 / 8 * 8e9)  # 2 * 7/8 of an eighth in fp32
    assert copies.inter_node < whole.inter_node
    assert sent(accumulate=4) == whole * 4


@pytest.mark.parametrize(
    ("strategy", "settings", "message"),
    [
        ("fsdp3", {}, "strategy: expected one of ddp, .* got 'fsdp3'"),
        ("ddp", {"tensor_parallel_size": 2}, "expected 1 unless the strategy is fsdp2_tp"),
        ("ddp", {"replicas": 2}, "replicas: expected 1 unless the strategy is fsdp2"),
        ("fsdp2", {"replicas": 3}, "expected a multiple of .* 1 x 3, got 8"),
        ("fsdp2", {"accumulate": 0}, "accumulate: expected a whole number of at least 1"),
    ],
)
def test_impossible_setups_are_rejected(
    strategy: str, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        step_bytes(strategy, SIZES, 8, 8, 64, **settings)
