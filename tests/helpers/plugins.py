"""Plug-ins as users would write them, named in configs by their class path."""

import os
import random
import signal
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor

from regularizers import Outputs, Regularizer, Requirements, TokenLoss, TrainingStep


class MaskedConsistency(Regularizer):
    """In the manner of MIR: mask random inputs and come close to the first pass."""

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = strength

    @property
    def requirements(self) -> Requirements:
        return Requirements(second_forward=True)

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        assert step.second_forward is not None
        masked = torch.rand(step.input_ids.shape, generator=step.generator()) < 0.5
        other = step.second_forward(perturb=lambda e: e.masked_fill(masked[..., None], 0.0))
        gap = ((other.nll - outputs.nll) * step.valid).square().sum() / step.valid.sum().clamp(
            min=1
        )
        step.log("gap", gap)
        return loss + self.strength * gap


class Repeat(Regularizer):
    """In the manner of R-Drop: run the same pass again and log how far the two are apart."""

    @property
    def requirements(self) -> Requirements:
        return Requirements(second_forward=True, divergence=True)

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        assert step.second_forward is not None
        again = step.second_forward()
        step.log("difference", (again.nll - outputs.nll).abs().max())
        step.log("divergence", outputs.kl_divergence(again).max())
        return loss + 0.0 * again.nll.sum()


class ExcessLoss(Regularizer):
    """In the manner of Rho-1: count only the tokens that are harder than for the reference."""

    @property
    def requirements(self) -> Requirements:
        return Requirements(reference=True)

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        assert step.reference is not None
        reference = step.reference()
        assert step.reference() is reference, "the model is run once a step"
        assert not reference.nll.requires_grad
        excess = outputs.nll.detach() - reference.nll
        step.log("excess", excess.abs().max())
        return TokenLoss(token_loss.loss, token_loss.weight * (excess >= 0))


class MeanTeacher(Regularizer):
    """Stay close to the predictions of the moving average of the weights."""

    def __init__(self, curriculum: float = 1.0, decay: float = 0.8) -> None:
        super().__init__()
        self.strength = curriculum
        self.decay = decay

    @property
    def requirements(self) -> Requirements:
        return Requirements(teacher=self.decay, divergence=True)

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        assert step.teacher is not None
        divergence = (step.teacher().kl_divergence(outputs) * step.valid).sum()
        step.log("divergence", divergence)
        return loss + self.strength * divergence / step.valid.sum().clamp(min=1)


class Logits(Regularizer):
    """Ask for all logits, in the manner of label smoothing."""

    @property
    def requirements(self) -> Requirements:
        return Requirements(logits=True)

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        assert outputs.logits is not None
        return loss - outputs.logits.log_softmax(-1).mean()


class KeepDraws(Regularizer):
    """Keeps what each rank draws in each step, in files."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = Path(folder)

    def on_input_ids(self, input_ids: Tensor, step: TrainingStep) -> Tensor:
        drawn = torch.rand(8, generator=step.generator())
        torch.save(drawn, self.folder / f"{dist.get_rank()}-{step.global_step}.pt")
        return input_ids


class FailInEpoch(L.Callback):
    """Ends a run by an error before the checkpoint of its first epoch."""

    def on_train_epoch_end(self, *_: Any) -> None:
        raise ValueError("a setting of this callback is wrong")


class TellToEnd(L.Callback):
    """Sends a signal to the own process before a step, and tells how it ends."""

    def __init__(self, rank: int, step: int, name: str = "SIGTERM") -> None:
        self.rank = rank
        self.step = step
        self.signum = signal.Signals[name]

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if (trainer.global_rank, trainer.global_step) == (self.rank, self.step):
            os.kill(os.getpid(), self.signum)

    def on_exception(self, trainer: L.Trainer, _: Any, exception: BaseException) -> None:
        steps, how = trainer.global_step, type(exception).__name__
        print(f"rank {trainer.global_rank} ends after {steps} steps: {how}", flush=True)


class Moody(Regularizer):
    """Scales embeddings by a number that nobody seeds again when a run is resumed."""

    def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
        return embeddings * (1 + 0.1 * random.random())
