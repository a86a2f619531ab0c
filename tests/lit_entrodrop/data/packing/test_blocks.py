from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import default_collate
from transformers import LlamaConfig, LlamaForCausalLM

from lit_entrodrop.data.packing import blocks as blocks_module
from lit_entrodrop.data.packing.best_fit import pack_documents
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.data.tokenizing import TokenizedDocuments
from regularizers.functional import IGNORE_INDEX

PAD = 0
VOCABULARY = 97


def random_documents(seed: int, longest: int = 40, count: int = 30) -> TokenizedDocuments:
    random = np.random.default_rng(seed)
    lengths = random.integers(2, longest + 1, size=count)
    tokens = random.integers(1, VOCABULARY, size=lengths.sum()).astype(np.uint16)
    return TokenizedDocuments(tokens, random.random(lengths.sum()) < 0.8, lengths)


def chunks_of(row: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Cut a row into its documents, without the padding."""
    numbers = range(int(row["document_ids"].max()) + 1)
    masks = [row["document_ids"] == number for number in numbers]
    return [{name: row[name][mask] for name in row if name != "block_id"} for mask in masks]


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("seed", range(15))
def test_every_token_is_in_one_place(seed: int, packing: bool) -> None:
    documents = replace(
        random_documents(seed), counted=np.ones_like(random_documents(seed).counted)
    )
    block_size = 3 + seed
    blocks = pack_documents(documents, block_size, PAD, packing)
    chunks = [chunk for n in range(len(blocks)) for chunk in chunks_of(blocks[n])]
    packed = sorted(token for chunk in chunks for token in chunk["input_ids"].tolist())
    assert packed == sorted(documents.tokens.tolist())
    if not packing:
        assert len(chunks) == len(blocks)
        inorder = [token for chunk in chunks for token in chunk["input_ids"].tolist()]
        assert inorder == documents.tokens.tolist()


def test_tokens_are_counted_without_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "PIECE", 50)
    blocks = pack_documents(random_documents(0), block_size=32, pad_id=PAD)
    some = blocks.select(np.arange(0, len(blocks), 2))
    rows = default_collate([some[n] for n in range(len(some))])
    expected = rows["input_ids"][rows["document_ids"] >= 0].bincount(minlength=VOCABULARY)
    assert len(list(some._pieces(some.tokens))) > 3
    assert torch.equal(some.token_counts(VOCABULARY), expected)


@pytest.mark.parametrize("seed", range(15))
def test_rows_are_well_formed(seed: int) -> None:
    blocks = pack_documents(random_documents(seed), block_size=32, pad_id=PAD)
    for n in range(len(blocks)):
        row = blocks[n]
        padding = row["document_ids"] == -1
        filled = int((~padding).sum())
        assert all(row[name].dtype == torch.int64 for name in row)
        assert all(row[name].shape == (32,) for name in row if name != "block_id")
        assert row["block_id"] == n
        assert not padding[:filled].any()
        assert (row["input_ids"][padding] == PAD).all()
        assert (row["labels"][padding] == IGNORE_INDEX).all()
        assert row["position_ids"][padding].tolist() == list(range(32 - filled))
        for chunk in chunks_of(row):
            counted = chunk["labels"] != IGNORE_INDEX
            assert chunk["position_ids"].tolist() == list(range(len(counted)))
            assert chunk["labels"][0] == IGNORE_INDEX
            assert (chunk["labels"][counted] == chunk["input_ids"][counted]).all()


def test_labels_are_the_counted_tokens_less_the_first_of_each_chunk() -> None:
    documents = random_documents(seed=3, longest=20)
    blocks = pack_documents(documents, block_size=20, pad_id=PAD, packing=False)
    labels = torch.cat([row["labels"] for row in map(blocks.__getitem__, range(len(blocks)))])
    starts = np.cumsum(documents.lengths) - documents.lengths
    expected = documents.counted.copy()
    expected[starts] = False
    assert labels[labels != IGNORE_INDEX].tolist() == documents.tokens[expected].tolist()


def test_block_of_padding_counts_nothing() -> None:
    row = pack_documents(random_documents(0), block_size=8, pad_id=PAD)[-1]
    assert row["block_id"] == -1
    assert (row["labels"] == IGNORE_INDEX).all()
    assert (row["document_ids"] == -1).all()
    assert row["position_ids"].tolist() == list(range(8))


def test_block_beyond_the_end_is_refused() -> None:
    blocks = pack_documents(random_documents(0), block_size=8, pad_id=PAD)
    with pytest.raises(IndexError, match="expected a block in -1"):
        blocks[len(blocks)]


def test_packing_leaves_little_padding() -> None:
    documents = random_documents(0, longest=100, count=2_000)
    assert pack_documents(documents, 128, PAD).padding < 0.02
    assert pack_documents(documents, 128, PAD, packing=False).padding > 0.5


def nll_by_chunk(model: LlamaForCausalLM, blocks: PackedBlocks) -> dict[tuple[int, ...], Tensor]:
    batch = default_collate([blocks[n] for n in range(len(blocks))])
    inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
    logits = model(**inputs, attention_mask=None, use_cache=False).logits
    labels = batch["labels"][:, 1:]
    nll = cross_entropy(
        logits[:, :-1].transpose(1, 2), labels, reduction="none", ignore_index=IGNORE_INDEX
    )
    batch["nll"] = pad(nll, (1, 0))
    rows = [{name: batch[name][n] for name in batch} for n in range(len(blocks))]
    chunks = [chunk for row in rows for chunk in chunks_of(row)]
    return {tuple(chunk["input_ids"].tolist()): chunk["nll"] for chunk in chunks}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_packed_loss_equals_unpacked_loss(attention: str) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    config._attn_implementation = attention
    model = LlamaForCausalLM(config)
    assert model.config._attn_implementation == attention
    for parameter in model.parameters():
        parameter.mul_(5)
    documents = random_documents(seed=0, longest=60)
    packed = nll_by_chunk(model, pack_documents(documents, 48, PAD, packing=True))
    single = nll_by_chunk(model, pack_documents(documents, 48, PAD, packing=False))
    assert packed.keys() == single.keys()
    assert sum(float(nll.sum()) for nll in packed.values()) > 100
    for chunk, nll in packed.items():
        torch.testing.assert_close(nll, single[chunk], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("packing", [True, False])
def test_mask_of_the_labels_is_that_of_the_rows(packing: bool) -> None:
    blocks = pack_documents(random_documents(3), 16, PAD, packing)
    rows = [blocks[n]["labels"].numpy() != IGNORE_INDEX for n in range(len(blocks))]
    masks = [blocks.label_mask(slice(start, start + 4)) for start in range(0, len(blocks), 4)]
    assert np.array_equal(np.concatenate(masks), np.stack(rows))


def test_labels_of_chunks_are_those_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    split = pack_documents(random_documents(3), 16, PAD)
    expected = [
        int((row["labels"][row["document_ids"] == chunk] != IGNORE_INDEX).sum())
        for row in (split[index] for index in range(len(split)))
        for chunk in range(int(row["document_ids"].max()) + 1)
    ]
    monkeypatch.setattr(blocks_module, "PIECE", 40)
    assert split.labels_per_chunk.tolist() == expected


def test_fingerprint_is_that_of_checkpoints_of_earlier_versions() -> None:
    blocks = pack_documents(random_documents(0), block_size=16, pad_id=PAD)
    assert blocks.fingerprint == "6d3d66f415ea76047849437d1d805952"
