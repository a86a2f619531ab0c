from typing import Any

from lit_entrodrop.model.loading import load_tokenizer
from lit_entrodrop.model.vocabulary import vocabulary_of
from tests.helpers.tiny import Tiny


def test_vocabulary_knows_named_and_added_special_tokens(tiny: Tiny) -> None:
    tokenizer = load_tokenizer(str(tiny.tokenizer))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.add_tokens(["ordinaryword"])
    vocabulary = vocabulary_of(tokenizer)
    assert vocabulary.size == 322
    assert vocabulary.special_ids == (0, 1, tokenizer.convert_tokens_to_ids("<|turn|>"))
    assert vocabulary.mask_id is None


def test_vocabulary_knows_the_mask_token(mask_tokenizer: Any) -> None:
    vocabulary = vocabulary_of(load_tokenizer(str(mask_tokenizer)))
    assert vocabulary.mask_id == 2
    assert vocabulary.special_ids == (0, 1, 2)
    assert vocabulary.size == 320
