import pytest
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.chats.stopping import stop_tokens
from tests.helpers.tokenizer_habits import CHATML, HABITS, TAGGED, TOOLS, make_tokenizer

EOS = "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
CALL_END = TOOLS.replace(
    "'<|im_end|>\n' }}{% endfor %}",
    "('<|im_start|>' if m.tool_calls else '<|im_end|>') + '\n' }}{% endfor %}",
)


def stops(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    return set(tokenizer.convert_ids_to_tokens(stop_tokens(tokenizer)))


@pytest.mark.parametrize("habit", HABITS)
def test_generation_stops_at_eos_and_at_the_end_of_a_turn(habit: str) -> None:
    tokenizer = make_tokenizer(habit)
    turn = set() if habit == "sentencepiece" else {"<|im_end|>"}
    assert stops(tokenizer) == {tokenizer.eos_token, *turn}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        # EOS follows only the last turn, as in Phi-3's template.
        (CHATML + EOS, {"<|endoftext|>", "<|im_end|>"}),
        # Tool calls end in another way, as in gpt-oss.
        (CALL_END, {"<|endoftext|>", "<|im_end|>", "<|im_start|>"}),
        # Space follows the end within the tags.
        (TAGGED.replace("<|im_end|>' }}", "<|im_end|>\n' }}"), {"<|endoftext|>", "<|im_end|>"}),
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", {"<|endoftext|>"}),
    ],
)
def test_turns_may_end_in_several_ways(template: str, expected: set[str]) -> None:
    assert stops(make_tokenizer("chatml_other_eos", chat_template=template)) == expected


def test_end_of_reasoning_is_no_stop() -> None:
    """As in gpt-oss, where one token ends reasoning and earlier answers."""
    template = CHATML.replace(
        "m['content'] + '<|im_end|>'",
        "(m.thinking + '<|im_end|>' if m.thinking else '') + m.content"
        " + ('<|pad|>' if loop.last and not add_generation_prompt else '<|im_end|>')",
    )
    assert stops(make_tokenizer("chatml_other_eos", template)) == {"<|endoftext|>", "<|pad|>"}
