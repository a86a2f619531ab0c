import pytest

from lit_entrodrop.data.tokens.token_text import pieces
from tests.helpers.tokenizer_habits import make_tokenizer

TEXT = "mild fever, naïve → 5 °C, 心臓 مرحبا 🙂\n\tat two"


@pytest.mark.parametrize("habit", ["chatml", "sentencepiece"])
def test_pieces_add_up_to_the_text(habit: str) -> None:
    tokenizer = make_tokenizer(habit)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    found = pieces(tokenizer, ids)
    assert len(found) == len(ids)
    assert "".join(found) == tokenizer.decode(ids) == TEXT
    # A character of several tokens is in the last of them.
    assert "🙂" in found
    assert found[found.index("🙂") - 1] == ""
