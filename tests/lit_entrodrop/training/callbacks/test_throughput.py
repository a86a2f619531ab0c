import time
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.flops import training_flops_per_token
from lit_entrodrop.runs.metrics_file import MetricsFile
from lit_entrodrop.runs.writing import WriteError
from lit_entrodrop.training.callbacks import Checkpoints, Throughput, throughput
from lit_entrodrop.training.callbacks.throughput import Clock, append, peak_memory, read_throughput
from tests.helpers.full_disk import files_of_at_most
from tests.helpers.tiny import Tiny

PAUSE, STEP = 0.2, 0.01  # seconds of a clock that the test sets
STATUS = Path("/proc/self/status")


class Slow(L.Callback):
    """Takes long over everything but steps, and counts tokens and steps by itself."""

    def __init__(self) -> None:
        self.tokens: dict[int, int] = {}
        self.seen = 0
        self.now = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self.now += STEP

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, _: Any
    ) -> None:
        self.seen += int((batch["document_ids"] != -1).sum())
        self.tokens[trainer.global_step] = self.seen

    def on_validation_end(self, *_: Any) -> None:
        self.now += PAUSE

    def on_save_checkpoint(self, *_: Any) -> None:
        self.now += PAUSE

    def on_train_epoch_end(self, *_: Any) -> None:
        self.now += PAUSE


@pytest.fixture(scope="module")
def run(tiny_module: Tiny) -> tuple[Path, Slow, MetricsFile]:
    slow, folder = Slow(), tiny_module.folder / "run"
    metrics = MetricsFile(folder)
    trainer = tiny_module.trainer(
        callbacks=[Throughput(peak_flops=1e9), slow, Checkpoints(every_n_train_steps=5)],
        logger=metrics,
        enable_checkpointing=True,
        max_epochs=2,
        log_every_n_steps=4,
        default_root_dir=folder,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(throughput, "perf_counter", lambda: slow.now)
        trainer.fit(tiny_module.module(), datamodule=tiny_module.data())
    return folder, slow, metrics


def test_tokens_are_those_that_are_no_padding(run: tuple[Path, Slow, Any]) -> None:
    folder, slow, *_ = run
    frame = read_throughput(folder)
    last = max(slow.tokens)
    assert frame.index.tolist() == [*range(4, last, 4), last]
    counted, before = 0.0, 0
    for step, row in frame.iterrows():
        counted += row["tokens_per_second"] * row["seconds_per_step"] * (step - before)
        before = step
        assert counted == pytest.approx(slow.tokens[step])


def test_only_steps_take_time(run: tuple[Path, Slow, Any]) -> None:
    folder, slow, _ = run
    # Two validations, two epoch ends and at least four checkpoints.
    assert slow.now > 8 * PAUSE
    assert read_throughput(folder)["seconds_per_step"].to_numpy() == pytest.approx(STEP)


def test_mfu_is_the_share_that_the_model_flops_take(
    run: tuple[Path, Slow, Any], tiny_module: Tiny
) -> None:
    frame = read_throughput(run[0])
    flops = training_flops_per_token(build_on_meta(tiny_module.lm()), block_size=16)
    expected = flops * frame["tokens_per_second"] / 1e9
    assert frame["mfu"].tolist() == pytest.approx(expected.tolist())


def test_metrics_that_must_repeat_hold_no_speed(run: tuple[Path, Slow, Any]) -> None:
    assert not [name for row in run[2].rows for name in row if "throughput" in name]


def test_resumed_run_goes_on_in_the_file_and_other_loggers_are_told(
    run: tuple[Path, Slow, Any], tiny_module: Tiny
) -> None:
    folder, slow, *_ = run
    before = len(read_throughput(folder))
    logger = CSVLogger(tiny_module.folder / "csv")
    trainer = tiny_module.trainer(
        callbacks=[Throughput()], logger=logger, max_epochs=3, default_root_dir=folder
    )
    last = folder / "checkpoints" / "last.ckpt"
    trainer.fit(
        tiny_module.module(), datamodule=tiny_module.data(), ckpt_path=last, weights_only=True
    )
    frame = read_throughput(folder)
    assert frame.index.is_monotonic_increasing
    assert len(frame) == before + trainer.global_step - max(slow.tokens)
    # A CPU has no peak that is known.
    assert frame["mfu"].isna().sum() == len(frame) - before
    logged = pd.read_csv(Path(logger.log_dir) / "metrics.csv").set_index("step")
    told = logged["throughput/tokens_per_second"].dropna()
    assert told.tolist() == pytest.approx(frame["tokens_per_second"].tolist()[before:])
    assert "throughput/mfu" not in logged


@pytest.mark.skipif(not STATUS.exists(), reason="Linux tells the peak of a process here")
def test_memory_is_what_the_system_tells() -> None:
    [line] = [line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
    kilobytes = int(line.split()[1])
    assert peak_memory(torch.device("cpu")) == pytest.approx(1024 * kilobytes, rel=0.01)


def test_clock_stands_still_in_a_pause() -> None:
    clock = Clock(torch.device("cpu"))
    for _ in range(2):
        clock.resume()
        time.sleep(0.02)
        clock.tick()
        clock.pause()
        time.sleep(0.2)
    assert 0.04 <= clock.seconds() < 0.2


def test_peak_must_be_positive() -> None:
    with pytest.raises(ValueError, match="peak_flops > 0"):
        Throughput(peak_flops=0)


def test_folder_without_speed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected throughput\.csv in"):
        read_throughput(tmp_path)


def test_full_disk_is_named(tmp_path: Path) -> None:
    with files_of_at_most(9), pytest.raises(WriteError, match=r"throughput\.csv: could not be"):
        append(tmp_path / "throughput.csv", {"step": 1.0})
