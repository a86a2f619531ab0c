"""Named evaluation sets, in one run that the tests share."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lit_entrodrop.runs.evaluations import evaluation_path, read_evaluations, read_run_info
from lit_entrodrop.runs.layout import find_checkpoint
from lit_entrodrop.runs.metrics_file import read_metrics
from lit_entrodrop.training.callbacks import EvaluationFiles
from tests.helpers.tiny import Tiny, texts, write_corpus

STOPPING = "lightning.pytorch.callbacks.EarlyStopping"


@dataclass
class EvaluatedRun:
    """A run whose set `copy` is its validation text, and whose set `odd` becomes less likely."""

    folder: Path
    arguments: list[str]

    @property
    def metrics(self) -> pd.DataFrame:
        return read_metrics(self.folder).dropna(subset=["val/loss"])


@pytest.fixture(scope="module")
def run(tiny_module: Tiny) -> EvaluatedRun:
    folder = tiny_module.folder
    validation = write_corpus(folder / "validation.jsonl", texts(12, seed=1))
    odd = write_corpus(folder / "odd.jsonl", [f"{n} ZQ{n}#" * 4 for n in range(8)])
    arguments = [
        f"--data.validation={validation}",
        f"--data.evaluate={{copy: {validation}, odd: {odd}}}",
        "--data.clean_train_blocks=4",
        "--checkpoints.monitor=odd/loss",
        "--trainer.max_epochs=6",
        f"--trainer.callbacks={STOPPING}",
        "--trainer.callbacks.init_args.monitor=odd/loss_high_entropy",
    ]
    stopping = "--trainer.callbacks.init_args.patience=2"
    return EvaluatedRun(tiny_module.run("fit", *arguments, stopping), arguments)


def test_a_set_has_every_metric_of_the_validation_split(run: EvaluatedRun) -> None:
    metrics = run.metrics
    kinds = [name.removeprefix("val/") for name in metrics if name.startswith("val/")]
    assert {"loss", "loss_low_entropy", "loss_mid_entropy", "accuracy"} <= set(kinds)
    for kind in kinds:
        assert metrics[f"copy/{kind}"].equals(metrics[f"val/{kind}"])
        assert f"odd/{kind}" in metrics or kind == "memorized"
    assert not np.allclose(metrics["odd/loss"], metrics["val/loss"])


def test_documents_of_a_set_have_their_losses(run: EvaluatedRun) -> None:
    for whole, copy in zip(
        read_evaluations(run.folder), read_evaluations(run.folder, "copy"), strict=True
    ):
        assert np.array_equal(whole.nll, copy.nll)
    odd = read_evaluations(run.folder, "odd")
    assert odd[-1].nll.shape[0] == 8
    np.testing.assert_allclose([each.loss[0] for each in odd], run.metrics["odd/loss"], rtol=1e-6)
    assert list(read_run_info(run.folder)["fingerprints"]) == [
        *("train", "validation", "copy", "odd", "clean_train")
    ]


def test_a_set_stops_the_run_and_selects_its_checkpoint(run: EvaluatedRun) -> None:
    trained = run.metrics[run.metrics.index > 0]
    stopping = trained["odd/loss_high_entropy"]
    assert len(trained) == 3 < 6
    assert stopping.idxmin() == stopping.index[0]
    assert trained["val/loss"].idxmin() == trained.index[-1]
    best = find_checkpoint("best", run.folder)
    assert best is not None
    assert best.name == f"step={trained['odd/loss'].idxmin()}.ckpt" != "step=0.ckpt"
    assert trained["odd/loss"].idxmin() < trained.index[-1]


def test_a_set_added_on_resume_has_no_buckets(tiny_module: Tiny, run: EvaluatedRun) -> None:
    folder = tiny_module.folder / "resumed"
    shutil.copytree(run.folder, folder, symlinks=True)
    added = write_corpus(tiny_module.folder / "added.jsonl", texts(9, seed=2))
    arguments = [*run.arguments, f"--data.evaluate.added={added}", "--trainer.max_epochs=4"]
    arguments += ["--trainer.callbacks.init_args.patience=9", "--ckpt_path=last"]
    with pytest.warns(UserWarning, match="expected the added blocks of the checkpoint, got others"):
        tiny_module.run("fit", *arguments, root=folder.name)
    last = read_metrics(folder).iloc[-1]
    assert np.isfinite(last["added/loss"])
    assert np.isfinite(last["odd/loss_high_entropy"])
    assert "added/loss_high_entropy" not in last
    assert evaluation_path(folder, int(last.name), evaluation_set="added").exists()


def test_validate_and_predict_read_a_set(
    tiny_module: Tiny, run: EvaluatedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*run.arguments[:2], f"--ckpt_path={run.folder}/checkpoints/last.ckpt"]
    place = tiny_module.run("validate", *arguments, root="validated")
    printed = capsys.readouterr().out
    last = run.metrics.iloc[-1]
    rows = [re.split(r"\s*│\s*", line) for line in printed.splitlines() if "│" in line]
    [row] = [cells for cells in rows if cells[1:3] == ["odd", "loss"]]
    assert float(row[3]) == pytest.approx(last["odd/loss"], rel=1e-4)
    assert len(list(place.rglob("odd/validation-step=*.npz"))) == 1
    predicted = tiny_module.data(
        evaluate={"odd": str(tiny_module.folder / "odd.jsonl")}, predict_split="odd"
    )
    predicted.setup()
    assert sum(map(len, (batch["block_id"] for batch in predicted.predict_dataloader()))) == (
        predicted.num_blocks("odd")
    )


def test_sets_alone_are_evaluated(tiny: Tiny) -> None:
    exam = write_corpus(tiny.folder / "exam.jsonl", texts(9, seed=2))
    data = tiny.data(validation=0.0, evaluate={"exam": str(exam)})
    trainer = tiny.trainer(max_epochs=1, callbacks=[EvaluationFiles()])
    trainer.fit(tiny.module(), datamodule=data)
    logged = trainer.callback_metrics
    assert all(logged[name].isfinite() for name in ("exam/loss_low_entropy", "clean_train/loss"))
    assert not any(name.startswith(("val/", "gap/")) for name in logged)
    root = Path(trainer.default_root_dir)
    assert len(read_evaluations(root, "exam")) == 1
    assert read_run_info(root)["passages"]["tokens"]
