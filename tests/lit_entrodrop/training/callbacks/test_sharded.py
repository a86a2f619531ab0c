"""Callbacks that run the model, or count over ranks, where the model is shared out."""

import json
from pathlib import Path

import pytest

import tests.helpers.deepspeed_cpu  # noqa: F401  as early as may be, so that ranks fork with it
from lit_entrodrop.runs.task_scores import ItemScore, read_task_scores
from lit_entrodrop.training.callbacks.throughput import read_throughput
from tests.helpers.runs import fit
from tests.helpers.tiny import CONFIGS, Tiny, texts

WATCHED = ["--trainer.callbacks+=lit_entrodrop.training.callbacks.Throughput"]
WATCHED += ["--trainer.callbacks+=lit_entrodrop.training.callbacks.Samples"]
WATCHED += ["--trainer.callbacks.init_args.new_tokens=4", "--trainer.max_epochs=1"]
WATCHED += ["--model.lm.config_overrides={num_key_value_heads: 2}"]
STRATEGIES = {
    # Both ranks compute the batch of one.
    "fsdp2_tp": [f"--config={CONFIGS / 'strategy' / 'fsdp2_tp.yaml'}"],
    "deepspeed_zero3": [
        "--trainer.strategy.class_path=tests.helpers.deepspeed_cpu.DeepSpeedOnCPU",
        "--trainer.strategy.stage=3",
        "--trainer.strategy.config={zero_optimization: {stage3_param_persistence_threshold: 0}}",
        "--data.batch_size=2",
    ],
}


def watched(tiny: Tiny) -> list[str]:
    """Return the arguments of a run that scores five prompts, an odd number to share out."""
    exam = tiny.folder / "exam.jsonl"
    exam.write_text(
        "".join(json.dumps({"prompt": text, "answer": "a"}) + "\n" for text in texts(5))
    )
    return [*WATCHED, f"--monitors.task.file={exam}", "--monitors.task.max_new_tokens=4"]


def outputs(folder: Path) -> dict[str, list[ItemScore]]:
    files = sorted((folder / "evaluations").glob("task-step=*.jsonl"))
    return {file.name: read_task_scores(file) for file in files}


@pytest.fixture(scope="module")
def alone(tiny_module: Tiny) -> Path:
    return fit(tiny_module, "alone", *watched(tiny_module))


@pytest.mark.parametrize("name", STRATEGIES)
def test_two_ranks_report_what_one_process_reports(
    alone: Path, tiny_module: Tiny, name: str
) -> None:
    arguments = [*watched(tiny_module), *STRATEGIES[name]]
    two = fit(tiny_module, name, *arguments, world_size=2)
    assert (two / "samples.jsonl").read_text() == (alone / "samples.jsonl").read_text()
    assert outputs(two) == outputs(alone)
    assert [len(items) for items in outputs(two).values()] == [5, 5]
    ours, theirs = read_throughput(two), read_throughput(alone)
    counted = [frame["tokens_per_second"] * frame["seconds_per_step"] for frame in (ours, theirs)]
    assert counted[0].tolist() == pytest.approx(counted[1].tolist())
