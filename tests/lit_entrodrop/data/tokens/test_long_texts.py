from random import Random

import pytest
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.tokens import long_texts
from lit_entrodrop.data.tokens.long_texts import encode_long_text
from tests.helpers.tokenizer_habits import make_tokenizer
from tests.lit_entrodrop.data.conftest import texts


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, characters in {"PIECE": 1000, "OVERLAP": 200, "UNSURE": 50}.items():
        monkeypatch.setattr(long_texts, name, characters)


@pytest.mark.parametrize("joint", [" ", "\n\n  ", "🙂 ", "<|end|>\t"])
def test_pieces_give_the_tokens_of_the_whole_text(
    tokenizer: PreTrainedTokenizerBase, joint: str
) -> None:
    text = joint.join(Random(0).sample(texts(60), 60))
    assert encode_long_text(text, tokenizer) == tokenizer(text)["input_ids"]


def test_texts_that_cannot_be_cut_are_left_to_the_tokenizer(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    text = " ".join(texts(60))
    assert encode_long_text(text, make_tokenizer("sentencepiece")) is None
    assert encode_long_text(text.replace(" ", ""), tokenizer) is None
    assert encode_long_text("short", tokenizer) is None
