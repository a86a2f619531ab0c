"""Real ``Trainer.fit`` runs that take a step when told, so that several can take turns.

Each fit runs in a thread of its own and stands still before each batch until its turn comes; only
one thread moves at a time. Nothing of Lightning's loop is left out or imitated: what is timed from
one standstill to the next is fetching a batch, the hooks, forward, backward, optimizer, logging.
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
    """Ends a fit that nobody will advance any more."""


class Gate(L.Callback):
    """Hold a fit before each batch until it may pass."""

    def __init__(self) -> None:
        self.passes = 0
        self.closed = False
        self.may_pass = Semaphore(0)
        self.stands = Semaphore(0)

    def on_train_batch_start(self, *_: Any) -> None:
        """Stand still unless passes are left."""
        if self.passes == 0:
            self.stands.release()
            self.may_pass.acquire()
        if self.closed:
            raise Closed
        self.passes -= 1


class LiveFit:
    """A fit that goes on by some steps whenever :meth:`advance` is called.

    Args:
        fit: runs ``Trainer.fit`` to its end; is called in a thread of its own, with the callback
            that the trainer must have.
    """

    def __init__(self, fit: Callable[[Gate], object]) -> None:
        self._gate = Gate()
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, args=[fit], daemon=True)
        self._thread.start()
        self._wait()

    def advance(self, steps: int = 1) -> None:
        """Take steps and stand still before the next; they are few enough for the run not to end.

        Raises:
            Exception: whatever the fit raises.
        """
        self._gate.passes = steps
        self._gate.may_pass.release()
        self._wait()

    def close(self) -> None:
        """End the fit where it stands, and let go of its model."""
        self._gate.closed = True
        self._gate.may_pass.release()
        self._thread.join()
        # Lightning gives a callback the log method of the model; an error holds whole frames.
        del self._gate, self._error

    def _run(self, fit: Callable[[Gate], object]) -> None:
        try:
            fit(self._gate)
            self._error = RuntimeError("the fit ended before its last turn: give it more steps")
        except BaseException as error:
            # SystemExit too: the main thread waits for a word.
            self._error = error
        self._gate.stands.release()

    def _wait(self) -> None:
        self._gate.stands.acquire()
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
        gate: of the :class:`LiveFit`.
        module: what to train.
        data: on what.
        steps: at most.
        device: ``cpu`` or ``cuda``.
        callbacks: beside the gate, before it.
        options: of the trainer.
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
    """Start what ``lit-entrodrop fit`` does, but without files and progress bar.

    Args:
        lm: the model; its weights are the same each time, even if they are random.
        regularizers: to train under.
        data: on what.
        options: of :func:`fit`.
    """
    seeded()
    module = LitCausalLM(
        lm, regularizers, partial(AdamW, lr=1e-5), cache_dir=data.hparams["cache_dir"]
    )
    return LiveFit(partial(fit, module=module, data=data, **SILENT, **options))


def topics_data(folder: Path, **settings: Any) -> TextDataModule:
    """Return a data module over the help topics of Python, a text that is there wherever Python is.

    Args:
        folder: where the corpus and the cache go.
        settings: of the data module.
    """
    corpus = folder / "topics.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in topics.values()))
    defaults = {"tokenizer": TOKENIZER, "validation": 0.0, "cache_dir": str(folder / "cache")}
    return TextDataModule(str(corpus), **{**defaults, **settings})


def llama(vocab_size: int, hidden_size: int, layers: int) -> LMConfig:
    """Describe a Llama with random weights and heads of 32 or 64 dimensions.

    The tokenizer is the tiny base LM's; words beyond its 4,096 never occur, but are computed.
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
    """Start from the same random numbers, so that all models start from the same weights."""
    torch.manual_seed(0)
