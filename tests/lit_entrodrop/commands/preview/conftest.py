import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lit_entrodrop.commands.doctor.configured_run import ConfiguredRun
from lit_entrodrop.commands.preview.content import Preview, preview_of
from lit_entrodrop.commands.preview.page import preview_page
from lit_entrodrop.commands.preview.tokens import ShownBlock, ShownChunk, ShownToken
from lit_entrodrop.runtime.shown_text import visible
from regularizers import Goldfish, RandomTokenDropout, TokenReplacement
from tests.helpers.doctor import make_run
from tests.helpers.tiny import Tiny, texts

# Ends of lines, escapes, text from right to left and in Chinese, markup, and a marker of ours.
NASTY = 'a\tb\n\x1b[31m\x07\u202e <b onclick="x">&amp;</b> مرحبا 心臓 🙂 [-x-] ‹y› \x9b2J {{ z }}'
PAIRS = [(f"What helps against {word}?", f" Rest, {word}.") for word in ("fever", "cough", "pain")]


def of_tokens(preview: Preview, *tokens: ShownToken) -> Preview:
    """Return a preview of one block with some tokens."""
    block = ShownBlock("train", 0, None, [ShownChunk(0, 0, len(tokens), list(tokens))], 0)
    return replace(preview, statistics=[], blocks=[block], effects=[], notes=[], mean_loss=None)


def token(text: str, **settings: Any) -> ShownToken:
    return ShownToken(1, text, text, **{"counts": True, "special": False, **settings})


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> ConfiguredRun:
    folder = tmp_path_factory.mktemp("preview")
    rows = [
        {"text": NASTY},
        *({"prompt": prompt, "completion": completion} for prompt, completion in PAIRS),
        *({"text": text} for text in texts(30)),
        {"text": " ".join(texts(20))},
    ]
    corpus = folder / "a<b>.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    regularizers = TokenReplacement(0.2), RandomTokenDropout(0.2), Goldfish(0.3, context=2)
    tiny = Tiny(folder, tiny_tokenizer, corpus)
    data = {"block_size": 48, "split_seed": 3, "batch_size": 64}
    return make_run(tiny, *regularizers, data=data, read=False)


@pytest.fixture(scope="session")
def preview(run: ConfiguredRun) -> Preview:
    """All training blocks, at the middle of the training."""
    return preview_of(run, "train", 0.5, 1000, with_model=True)


@pytest.fixture(scope="session")
def page(preview: Preview, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the preview, and of a token that imitates markup."""
    [nasty] = of_tokens(preview, token(visible(NASTY), change="replaced", replacement="<i>")).blocks
    path = tmp_path_factory.mktemp("page") / "preview.html"
    path.write_text(preview_page(replace(preview, blocks=[*preview.blocks, nasty])), "utf-8")
    return path
