"""Facts about a tokenizer that regularizers may use."""

from transformers import PreTrainedTokenizerBase

from regularizers import Vocabulary


def vocabulary_of(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """Return the vocabulary size, special ids and mask id of a tokenizer.

    Special ids are those of the named special tokens (bos, eos, pad, …) and of every added token
    that is marked special, such as the turn markers of chat templates.
    """
    added = tokenizer.added_tokens_decoder.items()
    special_ids = {index for index, token in added if token.special} | set(
        tokenizer.all_special_ids
    )
    return Vocabulary(
        size=len(tokenizer),
        special_ids=tuple(sorted(special_ids)),
        mask_id=tokenizer.mask_token_id,
    )
