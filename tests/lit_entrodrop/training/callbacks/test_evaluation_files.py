from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from lit_entrodrop.data.tokens.token_text import pieces
from lit_entrodrop.evaluation.diagnosis import diagnose
from lit_entrodrop.evaluation.diagnosis.run import comparable
from lit_entrodrop.runs.evaluations import (
    Evaluation,
    evaluation_path,
    read_evaluations,
    read_run_info,
)
from lit_entrodrop.runs.metrics_file import read_metrics
from tests.helpers.tiny import Tiny

FIELDS = ("nll", "tokens", "histogram", "passage_nll", "passage_entropy")


@pytest.fixture(scope="module")
def run(tiny_module: Tiny) -> Path:
    return tiny_module.run("fit")


def assert_equal(actual: Evaluation, expected: Evaluation, tolerance: float = 0.0) -> None:
    for name in FIELDS:
        assert_allclose(getattr(actual, name), getattr(expected, name), rtol=tolerance)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_ranks_find_what_one_finds(tiny_module: Tiny, run: Path, strategy: str) -> None:
    settings = ("--data.batch_size", 2, "--trainer.strategy", strategy)
    shared = tiny_module.run_ranks("fit", *settings, root=strategy)
    ones, twos = read_evaluations(run), read_evaluations(shared)
    assert [one.step for one in ones] == [two.step for two in twos]
    for one, two in zip(ones, twos, strict=True):
        assert np.array_equal(one.tokens, two.tokens)
        assert_equal(two, one, tolerance=1e-4)
    metrics = [read_metrics(folder).dropna(subset=["val/loss"]) for folder in (run, shared)]
    names = [name for name in metrics[0] if name.startswith(("val/", "clean_train/", "gap/"))]
    assert len(names) > 20
    assert_allclose(metrics[1][names], metrics[0][names], rtol=1e-4, atol=1e-5)


def test_passages_have_loss_and_entropy_of_each_token(tiny_module: Tiny, run: Path) -> None:
    info = read_run_info(run)
    data = tiny_module.data()
    data.setup()
    texts = {
        "".join(pieces(data.tokenizer, block["input_ids"][block["document_ids"] == n].tolist()))
        for block in data.blocks("validation")
        for n in range(int(block["document_ids"].max()) + 1)
    }
    passages = ["".join(tokens) for tokens in info["passages"]["tokens"]]
    assert len(set(passages)) >= 2
    assert set(passages) <= texts
    last = read_evaluations(run)[-1]
    for row, tokens in enumerate(info["passages"]["tokens"]):
        assert np.isnan(last.passage_nll[row, 0])
        assert (last.passage_nll[row, 1 : len(tokens)] > 0).all()
        assert np.isnan(last.passage_nll[row, len(tokens) :]).all()
        assert info["passages"]["reference_entropy"][row][0] is None


def test_information_has_buckets_data_and_settings(run: Path) -> None:
    info = read_run_info(run)
    assert info["buckets"]["names"] == ["low", "mid", "high"]
    assert info["buckets"]["edges"] == sorted(info["buckets"]["edges"])
    assert set(info["fingerprints"]) == {"train", "validation", "clean_train"}
    assert info["provenance"]["versions"]["torch"] == version("torch")


def test_evaluating_a_checkpoint_finds_what_the_run_has_found(tiny_module: Tiny, run: Path) -> None:
    tiny_module.run("validate", "--ckpt_path", "last")
    last = read_evaluations(run)[-1]
    again = Evaluation.load(evaluation_path(run, last.step, "validation"))
    assert again.epoch == last.epoch
    assert_equal(again, last, tolerance=1e-5)
    # It is no validation of the run itself.
    assert len(read_evaluations(run)) == 3


def test_a_run_that_goes_on_forgets_what_it_does_again(tiny_module: Tiny) -> None:
    run = tiny_module.run("fit", root="resumed")
    ahead = evaluation_path(run, 999)
    read_evaluations(run)[-1].save(ahead)
    tiny_module.run("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3, root="resumed")
    assert not ahead.exists()
    assert [each.epoch for each in read_evaluations(run)] == [0, 1, 2, 3]


def test_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evaluations" / "step=1.npz"
    path.parent.mkdir()
    path.write_bytes(b"no zip")
    with pytest.raises(ValueError, match="expected an evaluation written by `fit`"):
        read_evaluations(tmp_path)
    np.savez(path, step=1, epoch=np.array([object()], dtype=object))
    with pytest.raises(ValueError, match="expected an evaluation"):
        read_evaluations(tmp_path)
    with pytest.raises(ValueError, match=r"expected run\.json"):
        read_run_info(tmp_path)
    for content in ("{}", "[]", '{"buckets"'):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(ValueError, match=r"run\.json: expected the file that `fit` writes"):
            read_run_info(tmp_path)


@pytest.mark.parametrize("setting", ["passages=-1", "passage_tokens=1"])
def test_settings_out_of_range_are_refused(tiny_module: Tiny, setting: str) -> None:
    with pytest.raises(SystemExit):
        tiny_module.run("fit", f"--monitors.evaluations.{setting}", root="refused")


def test_a_look_at_some_batches_before_training_is_no_evaluation(tiny_module: Tiny) -> None:
    run = tiny_module.run("fit", "--trainer.num_sanity_val_steps", 1, root="glance")
    assert [each.epoch for each in read_evaluations(run)] == [1, 2]


def test_damage_does_not_end_training(tiny_module: Tiny) -> None:
    run = tiny_module.run("fit", root="damaged")
    torn = evaluation_path(run, read_evaluations(run)[-1].step)
    torn.write_bytes(torn.read_bytes()[:500])
    (torn.parent / "step=20 (copy).npz").write_bytes(b"")
    with pytest.warns(UserWarning, match="cannot judge this run: .*expected an evaluation"):
        tiny_module.run("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3, root="damaged")
    assert evaluation_path(run, 30).exists()


def test_other_buckets_on_resume_are_not_mixed_with_those_before(tiny_module: Tiny) -> None:
    run = tiny_module.run("fit", root="rebucketed")
    other = ["--model.entropy_buckets.quantiles", "[0.2,0.4,0.6,0.8]"]
    settings = ["--ckpt_path", "last", "--trainer.max_epochs", 4, *other]
    tiny_module.run("fit", *settings, root="rebucketed")
    kept = comparable(read_evaluations(run))
    assert [each.epoch for each in kept] == [3, 4]
    assert {len(each.edges) for each in kept} == {4}
    verdicts = diagnose(run).verdicts
    assert {"all", "bucket_1", "bucket_5"} <= set(verdicts)
    assert not {"low", "mid", "high"} & set(verdicts)


def test_a_checkpoint_without_entropies_goes_on_without_buckets(tiny_module: Tiny) -> None:
    run = tiny_module.run("fit", root="blank")
    path = (run / "checkpoints" / "last.ckpt").resolve()
    checkpoint = torch.load(path, weights_only=True)
    for split in ("validation", "clean_train"):
        del checkpoint["entropies"][split]
    torch.save(checkpoint, path)
    with pytest.warns(UserWarning, match="their loss is reported without buckets"):
        tiny_module.run("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3, root="blank")
    assert read_run_info(run)["buckets"]["edges"] == []
    assert set(diagnose(run).verdicts) == {"all"}
