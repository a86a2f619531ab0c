import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import pandas as pd
import pytest
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_entrodrop.cli.lit_cli import loggers
from lit_entrodrop.runs.metrics_file import MetricsFile, read_metrics
from lit_entrodrop.runs.writing import WriteError
from lit_entrodrop.training.callbacks import Checkpoints, Samples
from lit_entrodrop.training.loggers import TensorBoard
from tests.helpers.full_disk import files_of_at_most
from tests.helpers.killing import InterruptAt, Interrupted
from tests.helpers.tiny import CONFIGS, Tiny

COMPARED = ("train/loss", "learning_rate", "val/loss", "val/loss_high_entropy")


def curves(folder: Path) -> Iterator[tuple[str, pd.Series]]:
    """Yield what TensorBoard shows: the curves of a folder, by step."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    for name in events.Tags()["scalars"]:
        points = events.Scalars(name)
        yield name, pd.Series([p.value for p in points], [p.step for p in points])


def assert_shows_metrics(logged: dict[str, pd.Series], folder: Path) -> None:
    """Compare logged curves, of fp32 or better, with the metrics of the run."""
    metrics = read_metrics(folder)
    for name in COMPARED:
        expected = metrics[name].dropna()
        assert len(expected) >= 3
        assert logged[name].index.tolist() == expected.index.tolist(), name
        assert logged[name].tolist() == pytest.approx(expected.tolist(), rel=1e-6), name


def test_fit_logs_to_tensorboard(tiny: Tiny) -> None:
    run = tiny.run("fit")
    assert_shows_metrics(dict(curves(run)), run)
    [events] = (run / "tensorboard").iterdir()
    assert events.name.startswith("events.out.tfevents")


def test_resumed_run_shows_one_line_for_each_curve(tiny: Tiny) -> None:
    folder = tiny.folder / "run"

    def fit(*callbacks: L.Callback, resume: bool) -> None:
        trainer = tiny.trainer(
            callbacks=[*callbacks, Samples(count=1), Checkpoints(every_n_train_steps=6)],
            logger=[MetricsFile(folder), TensorBoard(folder)],
            enable_checkpointing=True,
            max_epochs=3,
            num_sanity_val_steps=-1,
            default_root_dir=folder,
        )
        last = folder / "checkpoints" / "last.ckpt" if resume else None
        trainer.fit(tiny.module(), datamodule=tiny.data(), ckpt_path=last, weights_only=True)

    with pytest.raises(Interrupted):
        fit(InterruptAt(16), resume=False)
    with pytest.raises(Interrupted):
        fit(InterruptAt(27), resume=True)
    fit(resume=True)
    shown = dict(curves(folder))
    assert len(list((folder / "tensorboard").iterdir())) > 2
    assert_shows_metrics(shown, folder)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    steps = [text.step for text in events.Tensors("samples/text_summary")]
    assert steps == [10, 20, 30]


def test_given_loggers_take_the_place_of_tensorboard(tmp_path: Path) -> None:
    own = [CSVLogger(tmp_path), CSVLogger(tmp_path)]
    kinds = [type(each) for each in loggers(own[0], tmp_path)]
    assert kinds == [MetricsFile, CSVLogger]
    assert loggers(own, tmp_path)[1:] == own
    assert loggers(False, tmp_path) == []
    for by_default in (None, True):
        assert [type(each) for each in loggers(by_default, tmp_path)] == [MetricsFile, TensorBoard]


def test_fit_logs_without_tensorboard_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert [type(each) for each in loggers(None, tmp_path)] == [MetricsFile]


def wandb_records(path: Path) -> Iterator[bytes]:
    """Yield what W&B would send: the records of a LevelDB log after a header of 7 bytes.

    Blocks of 32 KiB hold fragments: CRC (4 bytes), length (2), type (1: whole, 2: first, 3: middle,
    4: last of a record), content; no fragment starts in the last 6 bytes of a block.
    """
    content, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = 2**15 - place % 2**15
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def wandb_curves(path: Path) -> dict[str, pd.Series]:
    """Return the curves of an offline run, by optimizer step."""
    wandb_proto = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    curves: dict[str, dict[int, float]] = {}
    for data in wandb_records(path):
        record = wandb_proto.Record()
        record.ParseFromString(data)
        items = record.history.item
        row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
        for name, value in row.items():
            curves.setdefault(name, {})[row["trainer/global_step"]] = value
    return {name: pd.Series(points) for name, points in curves.items()}


def test_wandb_keeps_the_metrics_offline(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    # It would go on to write into streams that belong to a test.
    monkeypatch.setenv("WANDB_CONSOLE", "off")
    run = tiny.run(
        "fit",
        f"--config={CONFIGS / 'loggers' / 'wandb.yaml'}",
        f"--trainer.logger.init_args.save_dir={tiny.folder}",
    )
    wandb.teardown()  # which waits until all is written
    [stored] = (tiny.folder / "wandb").glob("offline-run-*/run-*.wandb")
    assert_shows_metrics(wandb_curves(stored), run)
    assert not (run / "tensorboard").exists()


def test_mlflow_keeps_the_metrics_in_a_local_database(tiny: Tiny) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tiny.folder}/mlflow.db"
    run = tiny.run(
        "fit",
        f"--config={CONFIGS / 'loggers' / 'mlflow.yaml'}",
        f"--trainer.logger.init_args.tracking_uri={uri}",
    )
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("lit-entrodrop")
    [stored] = client.search_runs([experiment.experiment_id])
    logged = {}
    for name in stored.data.metrics:
        history = client.get_metric_history(stored.info.run_id, name)
        logged[name] = pd.Series({point.step: point.value for point in history}).sort_index()
    assert_shows_metrics(logged, run)


def test_run_stops_early_by_the_loss_of_high_entropy_tokens(tiny: Tiny) -> None:
    run = tiny.run(
        "fit",
        f"--config={CONFIGS / 'callbacks' / 'early_stopping.yaml'}",
        "--trainer.max_epochs=40",
        "--trainer.logger=true",
        "--model.optimizer.init_args.lr=0.1",
        "--trainer.callbacks.init_args.patience=2",
    )
    losses = read_metrics(run)["val/loss_high_entropy"].dropna()
    assert len(losses) < 41
    # Lightning does not look at the validation before the first step.
    assert losses.iloc[1:].idxmin() == losses.index[-3]


def test_full_disk_is_named_by_tensorboard(tmp_path: Path) -> None:
    logger = TensorBoard(tmp_path)
    logger.log_metrics({"loss": 1.0}, 0)
    logger.save()
    named = rf"{tmp_path}/tensorboard: could not be written \(File too large\)"
    with files_of_at_most(10), pytest.raises(WriteError, match=named):
        log_all(logger)


def log_all(logger: TensorBoard) -> None:
    # A thread writes the points, so that an error appears late.
    for step in range(10):
        logger.log_metrics({"loss": 1.0}, step)
        logger.save()
