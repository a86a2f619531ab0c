"""A step never waits for the device: nothing reads a tensor's value between two log calls."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lit_entrodrop.training.callbacks import NaNGuard, RunProgressBar, Samples, Throughput
from regularizers import EmbeddingDropout, EntroDrop, RandomTokenDropout, Regularizer
from regularizers.wave_bound import WaveBound
from tests.helpers.tiny import Tiny

CONVERSIONS = {"tolist", "numpy", "cpu", "item", "__array__", "__bool__", "__float__", "__int__"}
# They read what is, or has already arrived, in host memory.
ON_HOST = ("async_copy.py", "store.py", "preemption.py")
READS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique"}


class Reads(TorchDispatchMode):
    """Collects operations whose result the host must wait for on an accelerator."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::").split("::")[-1]
        boolean_index = name in ("index", "index_put_") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1]
        )
        if name in READS or boolean_index:
            place = _caller()
            # Transformers itself looks, once a forward pass, whether documents are packed.
            if not place.startswith("masking_utils.py"):
                self.seen.append(f"{name} in {place}")
        return func(*args, **(kwargs or {}))


class Conversions(TorchFunctionMode):
    """Collects conversions to host values, which on a CPU are no operations."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in CONVERSIONS and not (place := _caller()).startswith((*ON_HOST, "masking_utils")):
            self.seen.append(f"{name} in {place}")
        return func(*args, **(kwargs or {}))


def _caller() -> str:
    """Name the innermost places outside this file and torch's internals."""
    frames = [
        frame
        for frame in traceback.extract_stack()[:-1]
        if "/torch/" not in frame.filename and not frame.name.startswith("__torch_")
    ]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-3:]))


class Watch(L.Callback):
    """Looks at every step that does not log, from the batch on the device to the optimizer."""

    def __init__(self) -> None:
        self.reads: list[str] = []
        self.steps = 0

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        self.mode = Reads()
        self.conversions = Conversions(self.mode.seen)
        self.mode.__enter__()
        self.conversions.__enter__()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.conversions.__exit__(None, None, None)
        self.mode.__exit__(None, None, None)
        if (trainer.global_step % trainer.log_every_n_steps) != 0:
            self.reads += self.mode.seen
            self.steps += 1


@pytest.mark.parametrize("source", ["last_epoch", "reference", "online"])
@pytest.mark.parametrize("head", ["torch", "naive"])
def test_a_step_reads_nothing_back(tiny: Tiny, head: str, source: Any) -> None:
    regularizers: list[Regularizer] = [
        EntroDrop(curriculum=0.5, entropy_source=source, target="both"),
        RandomTokenDropout(curriculum=0.1, replacement="random_token"),
        EmbeddingDropout(0.1),
        WaveBound(),
    ]
    watch = Watch()
    watching = [NaNGuard(), Throughput(), RunProgressBar(seconds_per_line=1e-9), Samples()]
    trainer = tiny.trainer(
        callbacks=[*watching, watch],
        enable_progress_bar=True,
        log_every_n_steps=4,
        gradient_clip_val=1.0,
        accumulate_grad_batches=2,
    )
    trainer.fit(tiny.module(*regularizers, lm={"head": head}), datamodule=tiny.data())
    assert watch.steps > 10
    assert watch.reads == []


@pytest.mark.parametrize(
    "read",
    [
        lambda tensor: tensor.mean().item(),
        lambda tensor: tensor.detach().tolist(),
        lambda tensor: tensor.detach().cpu(),
        lambda tensor: tensor.detach().numpy(),
        lambda tensor: bool(tensor.mean() > 0),
    ],
)
def test_a_read_is_noticed(tiny: Tiny, read: Callable[[torch.Tensor], Any]) -> None:
    class Reading(EmbeddingDropout):
        def on_embeddings(self, embeddings: Any, step: Any) -> Any:
            read(embeddings)
            return embeddings

    watch = Watch()
    trainer = tiny.trainer(callbacks=[watch], log_every_n_steps=4)
    trainer.fit(tiny.module(Reading(0.1)), datamodule=tiny.data())
    assert watch.reads
    assert all("in test_step_economy" in read for read in watch.reads)
