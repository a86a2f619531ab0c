"""Real ``Trainer.fit`` runs that advance step by step, so that several can alternate.

Each fit runs in its own thread and waits before each batch until its turn; only one thread runs at
a time. The loop is Lightning's own. The time between two waits includes fetching a batch, hooks,
forward, backward, optimizer and logging.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from threading import Semaphore, Thread
from typing import Any

import lightning as L
import torch

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.training.module import LitCausalLM
from lit_entrodrop.training.optim import AdamW
from regularizers import Regularizer

TOKENIZER = "package:lit_entrodrop/model/tiny_base"
TINY_BASE = LMConfig()
CLIP = 1.0
SILENT: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "log_every_n_steps": 10,
}


class Closed(BaseException):
    """Raised to end a fit that will not advance any more."""


class Gate(L.Callback):
    """Block a fit before each batch until it may continue."""

    def __init__(self) -> None:
        self.passes = 0
        self.closed = False
        self.may_pass = Semaphore(0)
        self.waiting = Semaphore(0)

    def on_train_batch_start(self, *_: Any) -> None:
        """Wait unless passes are left."""
        if self.passes == 0:
            self.waiting.release()
            self.may_pass.acquire()
        if self.closed:
            raise Closed
        self.passes -= 1


class LiveFit:
    """A fit that advances by some steps at each call of :meth:`advance`.

    Args:
        fit: Function that runs ``Trainer.fit`` in a separate thread, with the callback that it
            receives.
    """

    def __init__(self, fit: Callable[[Gate], object]) -> None:
        self._gate = Gate()
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, args=[fit], daemon=True)
        self._thread.start()
        self._wait()

    def advance(self, steps: int = 1) -> None:
        """Take steps, and wait before the next one; the run must not end within them.

        Raises:
            Exception: Any error of the fit.
        """
        self._gate.passes = steps
        self._gate.may_pass.release()
        self._wait()

    def close(self) -> None:
        """End the fit and release its model."""
        self._gate.closed = True
        self._gate.may_pass.release()
        self._thread.join()
        # The callback refers to the model by its log method, and an error refers to whole frames.
        del self._gate, self._error

    def _run(self, fit: Callable[[Gate], object]) -> None:
        try:
            fit(self._gate)
            self._error = RuntimeError("the fit ended before its last turn: increase its steps")
        except BaseException as error:
            # Including SystemExit, because the main thread waits.
            self._error = error
        self._gate.waiting.release()

    def _wait(self) -> None:
        self._gate.waiting.acquire()
        if self._error is not None:
            raise self._error


def fit(
    gate: Gate,
    module: L.LightningModule,
    data: TextDataModule,
    steps: int,
    device: str,
    callbacks: Sequence[L.Callback] = (),
    **options: Any,
) -> None:
    """Train on one device for some steps.

    Args:
        gate: Callback of the :class:`LiveFit`.
        module: Module to train.
        data: Training data.
        steps: Maximum number of steps.
        device: Device, ``cpu`` or ``cuda``.
        callbacks: Callbacks that run before the gate.
        options: Options of the trainer.
    """
    trainer = L.Trainer(
        accelerator="gpu" if device.startswith("cuda") else "cpu",
        devices=1,
        max_steps=steps,
        max_epochs=-1,
        gradient_clip_val=CLIP,
        callbacks=[*callbacks, gate],
        **options,
    )
    seeded()
    trainer.fit(module, datamodule=data)


def fine_tuning(
    lm: LMConfig, regularizers: Sequence[Regularizer], data: TextDataModule, **options: Any
) -> LiveFit:
    """Start the training of ``lit-entrodrop fit``, without files and progress bar.

    Args:
        lm: The model; its weights are the same each time, even if they are random.
        regularizers: Regularizers of the run.
        data: Training data.
        options: Options of :func:`fit`.
    """
    seeded()
    module = LitCausalLM(
        lm, regularizers, partial(AdamW, lr=1e-5), cache_dir=data.hparams["cache_dir"]
    )
    return LiveFit(partial(fit, module=module, data=data, **SILENT, **options))


def topics_data(folder: Path, **settings: Any) -> TextDataModule:
    """Return a data module for the help topics of Python, which every installation contains.

    Args:
        folder: Folder for the corpus and the cache.
        settings: Settings of the data module.
    """
    corpus = folder / "topics.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in topics.values()))
    defaults = {"tokenizer": TOKENIZER, "validation": 0.0, "cache_dir": str(folder / "cache")}
    return TextDataModule(str(corpus), **{**defaults, **settings})


def llama(vocab_size: int, hidden_size: int, layers: int) -> LMConfig:
    """Describe a Llama with random weights and heads of 32 or 64 dimensions.

    It uses the tokenizer of the tiny base LM. Tokens above its 4,096 never occur, but their logits
    are computed.
    """
    head_size = 64 if hidden_size % 64 == 0 else 32
    return LMConfig(
        pretrained=None,
        tokenizer=TOKENIZER,
        architecture={
            "model_type": "llama",
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "intermediate_size": 8 * hidden_size // 3,
            "num_hidden_layers": layers,
            "num_attention_heads": hidden_size // head_size,
            "num_key_value_heads": hidden_size // head_size,
            "max_position_embeddings": 512,
            "tie_word_embeddings": True,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 1,
        },
    )


def seeded() -> None:
    """Seed PyTorch, so that all models start from the same weights."""
    torch.manual_seed(0)
