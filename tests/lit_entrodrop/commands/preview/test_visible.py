import pytest

from lit_entrodrop.commands.preview.visible import visible_pieces
from tests.helpers.tokenizer_habits import make_tokenizer


@pytest.mark.parametrize("habit", ["chatml", "sentencepiece"])
def test_parts_of_characters_show_their_bytes(habit: str) -> None:
    tokenizer = make_tokenizer(habit)
    ids = tokenizer("🙂", add_special_tokens=False)["input_ids"]
    shown = visible_pieces(tokenizer, ids)
    assert "".join(shown).replace(" ", "").endswith("⟨F0⟩⟨9F⟩⟨99⟩🙂")
    # A text that is cut within a character.
    assert "".join(visible_pieces(tokenizer, ids[:-1])).endswith("⟨F0⟩⟨9F⟩⟨99⟩")


def test_special_tokens_keep_their_names() -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer("<|im_start|>user\nHello<|im_end|>", add_special_tokens=False)["input_ids"]
    assert "".join(visible_pieces(tokenizer, ids)) == "<|im_start|>user↵\nHello<|im_end|>"
