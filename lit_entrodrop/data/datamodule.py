"""The LightningDataModule: domain text in, packed and document-isolated batches out."""

import hashlib
import json
import math
import signal
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.blocks import PackedBlocks
from lit_entrodrop.data.cache import PackedSplit, read_splits, write_splits
from lit_entrodrop.data.orders import BlockOrder, Shuffled
from lit_entrodrop.data.orders.ordering import Ordering, count_epochs
from lit_entrodrop.data.preparing import gather_documents, prepare_split, sample_blocks
from lit_entrodrop.data.sampling import OrderedSampler, ResumableDataLoader, missing_batches
from lit_entrodrop.data.settings import check_at_least, shares_of
from lit_entrodrop.data.sources import digest_corpus, read_corpus
from lit_entrodrop.data.splitting import SPLITS, split_documents
from lit_entrodrop.data.tokenizing import digest_tokenizer
from lit_entrodrop.model.clean_pass import Batch
from lit_entrodrop.model.loading import load_tokenizer
from lit_entrodrop.runtime.ranks import data_rank

# Raise it when the same text and settings give other blocks than before.
CACHE_FORMAT = 2
# What is evaluated while a model is trained, in this order.
EVALUATED = ("validation", "clean_train", "forgetting")


class TextDataModule(LightningDataModule):
    """Turn domain text into packed blocks in which no document sees another.

    A batch holds int64 tensors of shape [batch_size, block_size]: `input_ids`; `labels`, not
    shifted, -100 where not counted (padding, prompts, the first token of each document or chunk);
    `position_ids`, from 0 in each document and in the padded tail; `document_ids`, from 0 in each
    row, -1 for padding. And `block_id`, [batch_size], the number of the block in its split, -1 for
    a block of padding only, which makes ranks even. There is no attention mask: pass none to the
    model and `use_cache=False`, and it isolates documents by `position_ids`.

    Records are told by their columns: `text_column`; `prompt` and `completion`, where the loss
    counts the completion; or `messages`, where it counts the assistant's turns, found by the
    tokenizer's chat template. EOS ends each document. A document longer than a block is cut into
    chunks; one without any token to predict is skipped, and the summary says how many were.

    Args:
        corpus: A .txt, .jsonl, .json, .csv or .parquet file, a folder of such files,
            `hub:org/name`, `hub:org/name:config` or `registry:NAME`; or a list of these. A .txt
            file is cut at lines that hold only <|endoftext|>; without such lines it is one
            document or, if it is alone, is cut into paragraph groups of about 4,000 characters.
        tokenizer: Folder, GGUF file or hub name of the tokenizer.
        block_size: Tokens in a block, at least 2.
        batch_size: Blocks in a batch of one rank.
        packing: Fill blocks with several documents; otherwise one document (chunk) a block.
        text_column: Column that holds plain text.
        validation: Share of the documents, by a hash of their content so that exact duplicates
            share a side; or a corpus of its own, named as in `corpus`. 0 for none.
        test: As `validation`.
        holdout: As `validation`, text that stands for what the model shall become good at: it is
            neither trained nor evaluated on, and tells regularizers which documents to prefer.
        max_train_tokens: Keep only the first so many training tokens, in whole documents in the
            order of the seeded hash; for experiments with scarce data. All if not set.
        split_seed: Seed of the split; runs that are to be compared share it.
        clean_train_blocks: Training blocks of a fixed sample on which the model is evaluated too,
            clean and without regularizers: what validation loss exceeds its loss by is the
            generalisation gap. 0 for none.
        forgetting: A general corpus, named as in `corpus`; the rise of its loss tells what the
            model forgets. None if not set.
        forgetting_tokens: Keep only the first so many tokens of it, in whole documents.
        order: Which training blocks an epoch reads, and in which order, by default each once,
            shuffled; see docs/order.md for others and for one of your own.
        seed: Seed of the order of training blocks.
        num_proc: Processes for tokenising.
        num_workers: Processes for loading batches; 0 loads in the main process.
        cache_dir: Folder in which tokenised and packed blocks are kept.
        predict_split: Split that `predict_dataloader` reads.

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(
        self,
        corpus: str | list[str],
        tokenizer: str,
        block_size: int = 512,
        batch_size: int = 8,
        packing: bool = True,
        text_column: str = "text",
        validation: float | str = 0.1,
        test: float | str = 0.0,
        holdout: float | str = 0.0,
        max_train_tokens: int | None = None,
        split_seed: int = 0,
        clean_train_blocks: int = 32,
        forgetting: str | None = None,
        forgetting_tokens: int = 20_000,
        order: BlockOrder = Shuffled(),  # noqa: B008
        seed: int = 0,
        num_proc: int = 1,
        num_workers: int = 0,
        cache_dir: str = "~/.cache/lit-entrodrop",
        predict_split: Literal["train", "validation", "test"] = "validation",
    ) -> None:
        super().__init__()
        check_at_least(
            2,
            block_size=block_size,
            max_train_tokens=max_train_tokens,
            forgetting_tokens=forgetting_tokens,
        )
        check_at_least(1, batch_size=batch_size, num_proc=num_proc)
        check_at_least(0, num_workers=num_workers, split_seed=split_seed, seed=seed)
        check_at_least(0, clean_train_blocks=clean_train_blocks)
        self._held_out = {"validation": validation, "test": test}
        if holdout:
            # Left out if there is none, so that the cache of such data stays what it was.
            self._held_out["holdout"] = holdout
        shares_of(self._held_out)
        # A checkpoint holds plain values alone.
        self.save_hyperparameters(logger=False, ignore=["order"])
        self.order = order
        self._corpus = [corpus] if isinstance(corpus, str) else list(corpus)
        self.block_size = block_size
        self.packing = packing
        self.predict_split = self._known(predict_split)
        self._splits: dict[str, PackedSplit] = {}
        self._ordering: Ordering | None = None
        self._train_loader: ResumableDataLoader | None = None
        self._restored: dict[str, Any] = {}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, loaded when first asked for."""
        return load_tokenizer(self.hparams["tokenizer"])

    def prepare_data(self) -> None:
        """Read, split, tokenise and pack the corpus, unless the cache holds the result."""
        self._open()

    def setup(self, stage: str | None = None) -> None:
        """Open the cached blocks, once, and log what they hold.

        Args:
            stage: Not used: every stage opens all splits.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If the corpus or the tokenizer cannot be used.
        """
        if not self._splits:
            self._splits = self._with_sample(self._open())
            rank_zero_info(self.summary())

    def fingerprint(self, split: str) -> str:
        """Hash the packed blocks of a split.

        Args:
            split: "train", "validation", "test", "holdout", "clean_train" or "forgetting".

        Returns:
            32 hexadecimal digits, equal for equal blocks.
        """
        return self.blocks(split).fingerprint()

    def blocks(self, split: str) -> PackedBlocks:
        """Return the blocks of a split.

        Args:
            split: As for `fingerprint`.

        Raises:
            ValueError: If it was not asked for.
        """
        return self._packed(split).blocks

    @property
    def evaluated(self) -> list[str]:
        """The splits on which a model is evaluated while it is trained, in their order."""
        if not self._has("validation"):
            return []
        return [split for split in EVALUATED if self._has(split)]

    def num_blocks(self, split: str) -> int:
        """Count the blocks of a split.

        Args:
            split: As for `fingerprint`.

        Returns:
            The number, over all ranks; 0 for a split that was not asked for.
        """
        return len(self._packed(split).blocks) if self._has(split) else 0

    def batches_per_epoch(self) -> int:
        """Count the training batches of one rank in one epoch."""
        replicas, _ = self._ranks()
        blocks_per_rank = math.ceil(self.num_blocks("train") / replicas)
        return math.ceil(blocks_per_rank / int(self.hparams["batch_size"]))

    def summary(self) -> str:
        """Tell the size of each split.

        Returns:
            One line a split.
        """
        present = [split for split in (*SPLITS, "forgetting") if self._has(split)]
        return "\n".join(f"{split}: {self._packed(split).describe()}" for split in present)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Read the training blocks as `order` says."""
        blocks = self._packed("train").blocks
        self._ordering = Ordering(
            self.order, len(blocks), self.hparams["seed"], lambda: count_epochs(self.trainer)
        )
        sampler = OrderedSampler(blocks, *self._ranks(), self._ordering)
        self._train_loader = ResumableDataLoader(blocks, sampler=sampler, **self._loading())
        self._restore_training()
        return self._train_loader

    def record_losses(self, block_id: Tensor, nll: Tensor, valid: Tensor) -> None:
        """Tell `order` the losses of a training batch, without waiting for the device.

        Args:
            block_id: [batch_size] int64, -1 for a block of padding.
            nll: [batch_size, block_size] nats; 0 where not valid.
            valid: [batch_size, block_size] bool, which tokens count.
        """
        if self._ordering:
            self._ordering.record(block_id, nll, valid)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Read the blocks of each split that is evaluated during training, in order."""
        return [self.ordered_dataloader(split) for split in self.evaluated]

    def test_dataloader(self) -> DataLoader[Batch]:
        """Read the test blocks in order."""
        return self.ordered_dataloader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Read the blocks of `predict_split` in order."""
        return self.ordered_dataloader(self.predict_split)

    def ordered_dataloader(self, split: str) -> DataLoader[Batch]:
        """Read the blocks of any split in order, each once over all ranks.

        Args:
            split: As for `fingerprint`.
        """
        blocks = self.blocks(split)
        sampler = OrderedSampler(blocks, *self._ranks())
        return DataLoader(blocks, sampler=sampler, **self._loading())

    def missing_dataloader(
        self, blocks: PackedBlocks, known: NDArray[np.bool_]
    ) -> tuple[DataLoader[Batch], int]:
        """Read those of some blocks that are not known yet, over all ranks.

        Where they are longer than those of the splits, a batch has fewer of them.

        Args:
            blocks: Of any split, or others.
            known: [blocks], which are known.

        Returns:
            The loader, and how many batches of this rank are done.
        """
        settings = self._loading()
        tokens = settings.pop("batch_size") * self.block_size
        cut = (max(1, tokens // blocks.block_size), *self._ranks())
        batches = missing_batches(known, *cut)
        loader = DataLoader(blocks, batch_sampler=batches, **settings)
        return loader, len(missing_batches(np.zeros_like(known), *cut)) - len(batches)

    def state_dict(self) -> dict[str, Any]:
        """Tell how far the training loader is, for the checkpoint.

        Returns:
            Its epoch and batches, how many blocks those had, and their order, or nothing before
            training.
        """
        if not (self._train_loader and self._ordering):
            return {}
        position = self._train_loader.state_dict()
        return {
            **position,
            "is_within_epoch": position["batches"] < self.batches_per_epoch(),
            "blocks_per_batch": self._blocks_per_batch(),
            "order": repr(self.order),
            "ordering": self._ordering.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume training where a checkpoint stood.

        Lightning restores loaders too, but not once `estimated_stepping_batches` was read.

        Args:
            state_dict: What `state_dict` returned.
        """
        self._require_same_readings(state_dict)
        self._restored = dict(state_dict)
        if self._train_loader:
            self._restore_training()

    def _restore_training(self) -> None:
        assert self._train_loader
        assert self._ordering
        restored, self._restored = self._restored, {}
        self._train_loader.load_state_dict(restored)
        self._ordering.load_state_dict(restored.get("ordering", {}))

    def _require_same_readings(self, state_dict: dict[str, Any]) -> None:
        restored = state_dict.get("blocks_per_batch")
        evaluates = self.trainer is not None and self.trainer.state.fn != TrainerFn.FITTING
        if restored is None or not state_dict["is_within_epoch"] or evaluates:
            return
        if (now := self._blocks_per_batch()) != restored:
            raise ValueError(
                f"data.batch_size: expected {restored} blocks a batch over all devices, as the "
                f"checkpoint stands within an epoch of such, got {now}: set data.batch_size to "
                f"{restored} / devices, or resume from a checkpoint of the end of an epoch"
            )
        own = repr(self.order)
        if (order := state_dict.get("order", own)) != own:
            raise ValueError(
                f"data.order: expected {order}, as the checkpoint stands within an epoch of that "
                f"order, got {own}: take the former, or resume from a checkpoint of the end of an "
                "epoch"
            )

    def _blocks_per_batch(self) -> int:
        return int(self.hparams["batch_size"]) * self._ranks()[0]

    def _loading(self) -> dict[str, Any]:
        workers = self.hparams["num_workers"]
        return {
            "batch_size": self.hparams["batch_size"],
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "worker_init_fn": _leave_signals_to_the_run,
            "pin_memory": torch.cuda.is_available(),
        }

    def _ranks(self) -> tuple[int, int]:
        return data_rank(self.trainer)[:2]

    def _has(self, split: str) -> bool:
        if not self._splits:
            raise RuntimeError("the data is not set up: call setup() first.")
        return self._known(split) in self._splits

    def _packed(self, split: str) -> PackedSplit:
        if self._has(split):
            return self._splits[split]
        raise ValueError(f"there is no {split} split: set {split} to a share above 0 or a path.")

    @staticmethod
    def _known(split: str) -> str:
        known = dict.fromkeys((*SPLITS, *EVALUATED))
        if split in known:
            return split
        raise ValueError(f"split: expected one of {', '.join(known)}, got {split!r}.")

    def _open(self) -> dict[str, PackedSplit]:
        splits = read_splits(self._cache_folder)
        if splits is None:
            write_splits(self._cache_folder, splits := self._build())
        return splits

    def _build(self) -> dict[str, PackedSplit]:
        reading = {name: self.hparams[name] for name in ("text_column", "split_seed")}
        settings = {name: self.hparams[name] for name in ("block_size", "packing", "num_proc")}
        sides = gather_documents(self._corpus, self._held_out, **reading)
        limits = {
            "train": self.hparams["max_train_tokens"],
            "forgetting": self.hparams["forgetting_tokens"],
        }
        if self.hparams["forgetting"] is not None:
            general = read_corpus([self.hparams["forgetting"]], self.hparams["text_column"])
            sides["forgetting"] = split_documents(general, 0, 0, reading["split_seed"])["train"]
        return {
            name: prepare_split(
                side, self.tokenizer, max_tokens=limits.get(name), name=name, **settings
            )
            for name, side in sides.items()
        }

    def _with_sample(self, splits: dict[str, PackedSplit]) -> dict[str, PackedSplit]:
        if not (count := self.hparams["clean_train_blocks"]):
            return splits
        # Runs that are to be compared share it, as they do the splits.
        sample = sample_blocks(splits["train"], count, seed=self.hparams["split_seed"])
        return {**splits, "clean_train": sample}

    @cached_property
    def _cache_folder(self) -> Path:
        names = ("block_size", "packing", "text_column", "max_train_tokens", "split_seed")
        sources = [source for source in self._held_out.values() if isinstance(source, str)]
        general, limit = self.hparams["forgetting"], "forgetting_tokens"
        general = [] if general is None else [general]
        key = {
            "format": CACHE_FORMAT,
            "corpus": digest_corpus(self._corpus, self.hparams["text_column"]),
            "own": digest_corpus(sources, self.hparams["text_column"]),
            "held_out": [isinstance(of, str) or of for of in self._held_out.values()],
            "forgetting": [
                (digest_corpus([each], self.hparams["text_column"]), self.hparams[limit])
                for each in general
            ],
            "tokenizer": digest_tokenizer(self.tokenizer),
            **{name: self.hparams[name] for name in names},
        }
        digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=16).hexdigest()
        return Path(self.hparams["cache_dir"]).expanduser() / digest


def _leave_signals_to_the_run(_: int) -> None:
    # What is told to a process group as a whole must not end workers before the run has ended.
    for signum in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)
