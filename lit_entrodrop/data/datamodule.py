"""The LightningDataModule: corpus → tokenize (cached) → pack → batches."""

from dataclasses import asdict
from functools import cached_property

from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.chats.template import read_chat_template, set_chat_template
from lit_entrodrop.data.file_formats import supported_formats
from lit_entrodrop.data.label_settings import LabelSettings, LongPairs, TrainOn
from lit_entrodrop.data.loading._weighted_order import check_weights
from lit_entrodrop.data.loading.repacking import Repack, check_repack
from lit_entrodrop.data.mixing import Replay, sources_of, weights_of
from lit_entrodrop.data.orders import BlockOrder, Shuffled
from lit_entrodrop.data.preparing.packed_splits import (
    PackedSplits,
    check_evaluation_sets,
    check_split_name,
    sample_blocks,
)
from lit_entrodrop.data.preparing.preparation import Preparation, load_or_prepare
from lit_entrodrop.data.preparing.splitting import split_shares
from lit_entrodrop.data.reading_options import reading_options
from lit_entrodrop.data.records import check_format_settings, record_formats
from lit_entrodrop.data.sources import describe_unread
from lit_entrodrop.data.training_datamodule import TrainingDataModule
from lit_entrodrop.model.loading import load_tokenizer
from lit_entrodrop.runtime.setting_checks import check_at_least
from lit_entrodrop.runtime.setting_types import check_types


class TextDataModule(TrainingDataModule):
    """Turn domain text into packed blocks in which documents do not attend to each other.

    EOS ends each document. The summary counts what is skipped, cut or changed; see docs/text.md.

    Batches consist of the rows of `PackedBlocks`, [batch_size, block_size]. They have no attention
    mask: pass none to the model, and `use_cache=False`, so that it isolates documents by
    `position_ids`.

    Args:
        corpus: Path to a file ({suffixes}) or to a folder of such files, which may be compressed
            (.gz, .bz2, .xz, .zst); to a folder that `save_to_disk` wrote, `folder[split]` if it has
            splits; `hub:org/name:config@revision[split]`, where all after the name is optional;
            `registry:NAME`; or a list of these. Each record is a document. A .txt or .md file is
            cut into documents at each <|endoftext|>. Without any it is one document; if it is the
            only file, it is cut into paragraph groups of about 4,000 characters, smaller ones if it
            is shorter than 80,000 characters. The summary lists files of a folder that are not
            read. Items of a list may have weights: `{source: …, weight: 2.0}`; see docs/replay.md.
        tokenizer: Path to a tokenizer folder or GGUF file, or a hub name.
        block_size: Number of tokens in a block, at least 2. A longer document is cut into chunks of
            at most this length, which are trained on as separate documents. The first token of a
            chunk does not count in the loss. `long_pairs` sets how a longer prompt or chat is cut.
        batch_size: Number of blocks in a batch of one rank.
        packing: Whether to fill blocks with several documents or chunks. If not, each gets a block
            of its own, padded.
        format: Format of the records ({record_formats}). By default, the columns of each record
            determine it. docs/formats.md lists them, and the tokens that count in the loss.
        columns: Own names of columns, by standard name, such as `prompt: question`. null for the
            standard names.
        encoding: Encoding of text files, JSON and tables among them; the name of a Python codec,
            such as utf-16 or cp1252.
        delimiter: Character between the columns of .csv and .tsv files, such as ";". null for a
            comma in .csv and a tab in .tsv.
        add_tokens: New tokens of the tokenizer, as `model.lm.add_tokens`.
        chat_template: Path to a .jinja file, or the text of a chat template, which replaces that of
            the tokenizer. `export` writes it beside the model. null for that of the tokenizer.
        train_on: Part of prompts and chats that counts in the loss. `completions`: completions and
            the assistant's turns. `last_turn`: completions and the last turn of the assistant.
            `all`: prompts too, and the text of every message except system prompts. Role headers
            and system prompts of chats never count, and all plain text does. A `train` flag or a
            `weight` of a message takes precedence; see docs/chats.md.
        long_pairs: Treatment of prompts and chats that are longer than a block. `truncate_prompt`
            cuts the context of labels on the left and keeps at least half a block of it. `split`
            makes fewer chunks, which share a single token. `drop` leaves such documents out.
            `error` refuses the first one. The summary counts all of these; see docs/text.md.
        split_special_tokens: Whether a special token that a document spells out, such as
            <|im_end|>, is ordinary text. By default it stays special, as texts with their own chat
            markup need. The summary counts both. Tokens of a chat template are always special.
        validation: Share of the documents, selected by a hash of their content so that exact
            duplicates share a split; or a separate corpus, named as in `corpus`. 0 for none.
        test: Share of the documents or a separate corpus, as `validation`. 0 for none.
        holdout: Share of the documents or a separate corpus, as `validation`, that resembles the
            target text. Regularizers use it to weight training documents; it is neither trained nor
            evaluated on. 0 for none.
        evaluate: Further evaluation sets by name, each a separate corpus named as in `corpus`. Each
            validation logs their metrics, such as `exam/loss`; documents that they share with the
            training text are not trained on. Without `validation`, the first set fixes the entropy
            buckets, but overfitting is not diagnosed. null for none.
        max_train_tokens: Maximum number of training tokens, for experiments with scarce data. Whole
            documents are kept, in the order of the seeded hash. null for no limit.
        split_seed: Seed of the split; runs to be compared must share it.
        clean_train_blocks: Number of training blocks, a fixed sample, on which the model is also
            evaluated without regularizers. Validation loss minus the loss on them is the
            generalization gap. 0 for none.
        forgetting: General corpus, named as in `corpus`, whose rising loss measures forgetting.
            null for none.
        forgetting_tokens: Maximum number of tokens of that corpus; whole documents are kept.
        repack: `epoch` to cut long documents of plain text at new places, and to pack all chunks
            again, in each epoch; `never` for the same blocks in all epochs. See docs/fresh_cuts.md.
        replay: General text that is mixed into each batch, against forgetting; null for none. See
            docs/replay.md.
        order: Order in which an epoch reads the training blocks; by default each once, shuffled.
            See docs/order.md for other orders and for writing one.
        seed: Seed of the order of training blocks.
        num_proc: Maximum number of processes for tokenizing; small corpora use fewer. null for the
            available CPUs, at most 16.
        num_workers: Number of processes for loading batches; 0 loads in the main process.
        cache_dir: Path to the folder that caches packed blocks.
        predict_split: Split or evaluation set that `predict_dataloader` reads.

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(
        self,
        corpus: str | list[str | dict[str, str | float]],
        tokenizer: str,
        block_size: int = 512,
        batch_size: int = 8,
        packing: bool = True,
        format: str = "auto",
        columns: dict[str, str] | None = None,
        encoding: str = "utf-8",
        delimiter: str | None = None,
        add_tokens: list[str] | str | None = None,
        chat_template: str | None = None,
        train_on: TrainOn = "completions",
        long_pairs: LongPairs = "truncate_prompt",
        split_special_tokens: bool = False,
        validation: float | str = 0.1,
        test: float | str = 0.0,
        holdout: float | str = 0.0,
        evaluate: dict[str, float | str] | None = None,
        max_train_tokens: int | None = None,
        split_seed: int = 0,
        clean_train_blocks: int = 32,
        forgetting: str | None = None,
        forgetting_tokens: int = 20_000,
        repack: Repack = "never",
        replay: Replay | None = None,
        order: BlockOrder = Shuffled(),  # noqa: B008
        seed: int = 0,
        num_proc: int | None = None,
        num_workers: int = 0,
        cache_dir: str = "~/.cache/lit-entrodrop",
        predict_split: str = "validation",
    ) -> None:
        check_types("data", TextDataModule.__init__, locals())
        super().__init__()
        check_at_least(2, block_size=block_size, max_train_tokens=max_train_tokens)
        check_at_least(2, forgetting_tokens=forgetting_tokens)
        check_at_least(1, batch_size=batch_size, num_proc=num_proc)
        check_at_least(0, num_workers=num_workers, split_seed=split_seed, seed=seed)
        check_at_least(0, clean_train_blocks=clean_train_blocks)
        sets = check_evaluation_sets(evaluate or {})
        split_sources = {"validation": validation, "test": test, **sets}
        if holdout:
            # Omitted without holdout, so that the cache key of such data does not change.
            split_sources["holdout"] = holdout
        split_shares(split_sources)
        check_repack(repack, order)
        self.save_hyperparameters(logger=False, ignore=["order", "replay"])
        # A checkpoint stores only plain values, and the text of the template, not its path.
        self.hparams["replay"] = None if replay is None else asdict(replay)
        self.hparams["chat_template"] = read_chat_template(chat_template)
        self.order = order
        self.corpus, self.weights = sources_of(corpus), weights_of(corpus)
        check_weights(self.weights, order, repack)
        self.replay = replay if replay and replay.share else None
        self.block_size = block_size
        self.packing = packing
        self.predict_split = check_split_name(predict_split, sets)
        self._preparation = Preparation(
            self.corpus,
            split_sources,
            forgetting,
            forgetting_tokens,
            max_train_tokens,
            reading_options(self.hparams),
            split_seed,
            block_size,
            packing,
            LabelSettings(train_on, long_pairs),
            bool(self.weights),
            self.replay,
        )
        check_format_settings(self._preparation.options)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, loaded at first use."""
        tokenizer = load_tokenizer(self.hparams["tokenizer"], self.hparams["add_tokens"])
        set_chat_template(tokenizer, self.hparams["chat_template"])
        tokenizer.split_special_tokens |= self.hparams["split_special_tokens"]
        return tokenizer

    def prepare_data(self) -> None:
        """Read, split, tokenize and pack the corpus, unless the cache has the result.

        Raises:
            ValueError: If the trainer evaluates a split that was not requested.
        """
        # Preparing the corpus may take long.
        stage = self.trainer.state.fn if self.trainer else None
        if stage == TrainerFn.TESTING:
            self.check_requested("test")
        if stage == TrainerFn.VALIDATING and not self.hparams["evaluate"]:
            self.check_requested("validation")
        if stage == TrainerFn.PREDICTING:
            self.check_requested(self.predict_split)
        self._load_or_prepare()

    def check_requested(self, split: str) -> None:
        """Raise a ValueError if the settings request no such split or evaluation set."""
        requested = {
            "train": True,
            "clean_train": self.hparams["clean_train_blocks"],
            "forgetting": self.hparams["forgetting"],
            **self._preparation.split_sources,
        }
        if not requested.get(check_split_name(split, requested)):
            PackedSplits()[split]

    def setup(self, stage: str | None = None) -> None:
        """Open the packed blocks of all splits, once and for every stage, and log their sizes.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If the corpus or the tokenizer cannot be used.
        """
        if self._splits is None:
            splits = self._load_or_prepare()
            if count := self.hparams["clean_train_blocks"]:
                # Runs to be compared share the sample, as they share the split.
                seed = self.hparams["split_seed"]
                splits["clean_train"] = sample_blocks(splits["train"], count, seed)
            self._splits = splits
            rank_zero_info(self.summary())

    def summary(self) -> str:
        """Describe the size of each split, one line per split, and the files that were not read."""
        unread = describe_unread(self._preparation.sources)
        return "\n".join(filter(None, (self.describe_splits(), unread)))

    def describe_splits(self) -> str:
        """Describe the size of each split, one line per split, without names of files."""
        return "\n".join(filter(None, (self.splits.describe(), self.mixture.describe())))

    def _load_or_prepare(self) -> PackedSplits:
        cache_dir, num_proc = self.hparams["cache_dir"], self.hparams["num_proc"]
        return load_or_prepare(self._preparation, self.tokenizer, cache_dir, num_proc)


# A new file format or format of records appears in the help text without an edit here.
if TextDataModule.__doc__:
    _SUFFIXES, _RECORD_FORMATS = ", ".join(supported_formats()), ", ".join(record_formats())
    TextDataModule.__doc__ = TextDataModule.__doc__.replace("{suffixes}", _SUFFIXES)
    TextDataModule.__doc__ = TextDataModule.__doc__.replace("{record_formats}", _RECORD_FORMATS)
