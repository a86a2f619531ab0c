from collections import defaultdict

import numpy as np

from lit_entrodrop.commands.doctor.configured_run import ConfiguredRun
from lit_entrodrop.commands.preview.content import Preview
from lit_entrodrop.commands.preview.terminal import chunk_title
from lit_entrodrop.commands.preview.tokens import ShownBlock, ShownChunk, ShownToken
from tests.lit_entrodrop.commands.preview.conftest import PAIRS


def tokens_of(block: ShownBlock) -> list[ShownToken]:
    return [token for chunk in block.chunks for token in chunk.tokens]


def test_counted_tokens_are_the_labels_of_the_block(run: ConfiguredRun, preview: Preview) -> None:
    blocks = run.data.blocks("train")
    assert sorted(block.number for block in preview.blocks) == list(range(len(blocks)))
    for block in preview.blocks:
        row, tokens = blocks[block.number], tokens_of(block)
        real = row["document_ids"] >= 0
        assert [token.token_id for token in tokens] == row["input_ids"][real].tolist()
        assert [token.counts for token in tokens] == (row["labels"] != -100)[real].tolist()
        assert block.padding == int((~real).sum())
        assert not any(token.weight for token in tokens if not token.counts)


def test_documents_are_apart_and_cut_ones_say_where(run: ConfiguredRun, preview: Preview) -> None:
    chunks = [chunk for block in preview.blocks for chunk in block.chunks]
    documents: dict[int, list[ShownChunk]] = defaultdict(list)
    for chunk in sorted(chunks, key=lambda chunk: chunk.first):
        documents[chunk.document].append(chunk)
    assert sorted(documents) == list(range(run.data.splits["train"].documents))
    assert max(map(len, documents.values())) > 1
    for parts in documents.values():
        assert [part.first for part in parts] == [
            sum(len(before.tokens) for before in parts[:index]) for index in range(len(parts))
        ]
        # A document ends with EOS, the only special token here.
        special = [token.special for part in parts for token in part.tokens]
        assert special == [False] * (parts[0].length - 1) + [True]
    cut = next(parts for parts in documents.values() if len(parts) > 1)
    assert "cut after" in chunk_title(cut[0])
    assert "cut before:" in chunk_title(cut[-1])


def test_completions_count_and_prompts_do_not(preview: Preview) -> None:
    chunks = [
        "".join(t.text for t in c.tokens if t.counts) for b in preview.blocks for c in b.chunks
    ]
    prompts = [
        "".join(t.text for t in c.tokens if not t.counts) for b in preview.blocks for c in b.chunks
    ]
    found = [pair for pair in PAIRS if pair[0] in prompts]
    assert found
    for prompt, completion in found:
        assert chunks[prompts.index(prompt)] == f"{completion}</s>"


def test_every_kind_of_change_has_its_remark(preview: Preview) -> None:
    tokens = [token for block in preview.blocks for token in tokens_of(block)]
    for token in tokens:
        remarks = " ".join(token.remarks)
        assert (token.change == "dropped") == ("embedding zeroed" in remarks)
        if token.change == "replaced":
            assert f"token_replacement: replaced by {token.replacement}" in remarks
        if token.counts:
            assert (token.weight == 0) == ("goldfish: weight 0" in remarks)
        # The first token of a chunk has no prediction.
        assert np.isfinite(token.entropy) or not token.counts
    assert {"", "dropped", "replaced"} == {token.change for token in tokens}
    assert any(token.weight == 0 for token in tokens if token.counts)
