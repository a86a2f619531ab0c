import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lit_entrodrop.model.generation import continue_prompts, sample_tokens
from lit_entrodrop.training.callbacks import Checkpoints, Samples
from regularizers import EntroDrop
from tests.helpers.tiny import Tiny


def fit(tiny: Tiny, folder: Path, *callbacks: Any, resume: bool = False, **settings: Any) -> Any:
    trainer = tiny.trainer(
        callbacks=[*callbacks, Checkpoints()],
        enable_checkpointing=True,
        default_root_dir=folder,
        **{"num_sanity_val_steps": -1, **settings},
    )
    module = tiny.module(EntroDrop(curriculum=0.5))
    last = folder / "checkpoints" / "last.ckpt" if resume else None
    trainer.fit(module, datamodule=tiny.data(), ckpt_path=last, weights_only=True)
    return module


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


class Killed(L.Callback):
    """Ends a run in its third epoch."""

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.current_epoch == 2:
            raise RuntimeError("killed")


def sampling() -> Samples:
    return Samples(count=3, new_tokens=6, temperature=0.8)


@pytest.fixture(scope="module")
def run(tiny_module: Tiny) -> tuple[Path, Any]:
    folder = tiny_module.folder / "run"
    return folder, fit(tiny_module, folder, sampling(), max_epochs=3)


def test_samples_at_the_end_of_each_epoch(run: tuple[Path, Any]) -> None:
    written = rows(run[0])
    assert [row["epoch"] for row in written] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert all(row["prompt"] and isinstance(row["text"], str) for row in written)
    assert len({row["prompt"] for row in written}) == 3
    steps = sorted({row["step"] for row in written})
    assert steps == [steps[0], 2 * steps[0], 3 * steps[0]]


def test_samples_change_nothing(run: tuple[Path, Any], tiny_module: Tiny) -> None:
    without = fit(tiny_module, tiny_module.folder / "without", max_epochs=3)
    for ours, theirs in zip(run[1].parameters(), without.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_resumed_run_has_the_samples_of_a_whole_one(
    run: tuple[Path, Any], tiny_module: Tiny
) -> None:
    folder = tiny_module.folder / "resumed"
    with pytest.raises(RuntimeError, match="killed"):
        fit(tiny_module, folder, sampling(), Killed(), max_epochs=3)
    with (folder / "samples.jsonl").open("a") as file:
        file.write('{"step": 99, "text": "of steps that the checkpoint does not know"}\n')
    fit(tiny_module, folder, sampling(), max_epochs=3, resume=True)
    assert rows(folder) == rows(run[0])


def test_greedy_continuation_is_that_of_transformers(run: tuple[Path, Any]) -> None:
    _, module = run
    tokenizer = module.tokenizer
    prompts = [tokenizer(text)["input_ids"] for text in ("12 acute renal", "3 fever", "7")]

    def greedy(logits: torch.Tensor) -> list[int]:
        return sample_tokens(logits, 0.0, torch.Generator())

    ours = continue_prompts(module.causal_lm, prompts, 8, greedy)
    for prompt, tokens in zip(prompts, ours, strict=True):
        reference = module.causal_lm.unwrapped.generate(
            torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=None
        )
        assert tokens == reference[0, len(prompt) :].tolist()


def test_temperature_shares_out_tokens_by_their_softmax() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(20_000, 3)
    drawn = torch.tensor(sample_tokens(logits, 0.5, torch.Generator().manual_seed(0)))
    shares = drawn.bincount(minlength=3) / len(drawn)
    torch.testing.assert_close(shares, (2 * logits[0]).softmax(0), atol=0.01, rtol=0)


def test_context_bounds_a_sample(run: tuple[Path, Any]) -> None:
    greedy = torch.Tensor.argmax
    [tokens] = continue_prompts(
        run[1].causal_lm, [[5] * 60], 32, lambda logits: greedy(logits, -1).tolist()
    )
    # The tiny model has places for 64 tokens.
    assert len(tokens) == 4


def test_own_prompts_every_second_epoch(
    tiny: Tiny, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    samples = Samples(
        every_n_epochs=2, count=3, new_tokens=3, prompts=["mild cough", "the heart"], show=True
    )
    with caplog.at_level("INFO", "lightning.pytorch"):
        fit(tiny, tmp_path / "run", samples, max_epochs=3)
    written = rows(tmp_path / "run")
    assert [row["epoch"] for row in written] == [2, 2, 2]
    assert [row["prompt"] for row in written] == ["mild cough", "the heart", "mild cough"]
    assert caplog.text.count("sample: mild cough") == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": 1e-300},
        {"prompts": []},
        {"prompts": [""]},
        {"seed": 2**31},
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected temperature 0, or 0\.01 to 100, prompts"):
        Samples(**settings)


@pytest.mark.parametrize("name", ["every_n_epochs", "count", "new_tokens", "prompt_tokens"])
def test_numbers_are_at_least_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a whole number of at least 1"):
        Samples(**{name: 0})
