import unicodedata

import pytest

from lit_entrodrop.commands.preview.visible import visible, visible_pieces
from tests.helpers.tokenizer_habits import make_tokenizer


def test_no_character_reaches_the_screen_as_a_command() -> None:
    every = "".join(map(chr, (*range(0x3000), *range(0xD800, 0xD810), 0xFEFF, 0xE000, 0xE0001)))
    shown = visible(every)
    shown.encode()
    left = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")}
    assert left == {"\n", "\u200c", "\u200d"}
    assert visible("plain äö 心臓 مرحبا 🙂 👩‍⚕️") == "plain äö 心臓 مرحبا 🙂 👩‍⚕️"


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
