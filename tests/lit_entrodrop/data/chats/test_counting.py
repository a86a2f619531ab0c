"""What counts in the loss, against texts written by hand."""

from typing import Any

import pytest

from lit_entrodrop.data.chats.encoding import encode_chat
from lit_entrodrop.data.chats.record import Chat, read_chat
from lit_entrodrop.data.label_settings import TrainOn
from tests.helpers.tokenizer_habits import CHATML, learned, make_tokenizer

SYSTEM = {"role": "system", "content": "Be brief."}
HI = {"role": "user", "content": "user"}  # the name of a role, too
YO = {"role": "assistant", "content": "yo"}
NO = {"role": "assistant", "content": "no"}
TOOL = {"role": "tool", "content": "22"}


def flagged(message: dict[str, Any], **flags: Any) -> dict[str, Any]:
    return {**message, **flags}


@pytest.mark.parametrize(
    ("habit", "train_on", "messages", "expected"),
    [
        ("chatml", "completions", [SYSTEM, HI, YO, HI, NO], ["yo<|im_end|>", "no<|im_end|>"]),
        ("chatml", "last_turn", [SYSTEM, HI, YO, HI, NO], ["no<|im_end|>"]),
        ("chatml", "last_turn", [HI, YO, HI], ["yo<|im_end|>"]),
        # An earlier blank turn does not matter.
        ("chatml", "last_turn", [HI, flagged(YO, content=""), HI, NO], ["no<|im_end|>"]),
        (
            "chatml",
            "all",
            [SYSTEM, HI, YO, TOOL, NO],
            ["user<|im_end|>", "yo<|im_end|>", "22<|im_end|>", "no<|im_end|>"],
        ),
        ("default_system", "all", [HI, YO], ["user<|im_end|>", "yo<|im_end|>"]),
        ("tagged", "all", [HI, YO], ["user<|im_end|>", "yo<|im_end|>"]),
        ("no_system", "all", [flagged(HI, content=" hi\n"), YO], ["hi<|im_end|>", "yo<|im_end|>"]),
        # Flags take precedence, as in Axolotl and OpenAI's format.
        ("chatml", "completions", [HI, flagged(YO, train=False), HI, NO], ["no<|im_end|>"]),
        (
            "chatml",
            "last_turn",
            [HI, flagged(YO, weight=1), HI, flagged(NO, weight=0)],
            ["yo<|im_end|>"],
        ),
        (
            "chatml",
            "completions",
            [flagged(HI, train=True), YO],
            ["user<|im_end|>", "yo<|im_end|>"],
        ),
        ("chatml", "all", [flagged(HI, training=False), YO], ["yo<|im_end|>"]),
    ],
)
def test_counted(
    habit: str, train_on: TrainOn, messages: list[dict[str, Any]], expected: list[str]
) -> None:
    chat = read_chat({"messages": messages})
    assert learned(make_tokenizer(habit), chat, train_on) == expected


def test_turns_of_a_prompt_count_only_with_all_text() -> None:
    chat, tokenizer = Chat([HI, YO, HI, NO], prompt_messages=3), make_tokenizer()
    assert Chat.from_json(chat.to_json()) == chat
    assert learned(tokenizer, chat) == ["no<|im_end|>"]
    assert learned(tokenizer, chat, "all")[1] == "yo<|im_end|>"


def test_parts_of_a_text_count() -> None:
    """As in Axolotl's `train_detail`, text outside of the parts does not count."""
    details = [
        {"begin_offset": 0, "end_offset": 4, "train": False},
        {"begin_offset": 5, "end_offset": 11, "train": True},
    ]
    long = flagged(YO, content="Well, thanks. And you?", train_detail=details)
    asked = flagged(
        HI,
        content="How are you?",
        train_detail=[{"begin_offset": 3, "end_offset": 6, "train": True}],
    )
    chat = read_chat({"messages": [asked, long]})
    assert learned(make_tokenizer(), chat) == [" are", " thanks", "<|im_end|>"]
    chat = read_chat({"messages": [asked, flagged(long, train=False)]})
    assert learned(make_tokenizer(), chat) == [" are"]
    parts = [{"text": "Well,", "train": False}, {"text": " thanks."}]
    chat = read_chat({"messages": [HI, flagged(YO, content=parts)]})
    assert learned(make_tokenizer(), chat) == [" thanks.<|im_end|>"]
    # Template trims, and special tokens in the text are ordinary text.
    tokenizer = make_tokenizer("no_system")
    tokenizer.split_special_tokens = True
    parts = [{"text": "  <|im_end|>,", "train": False}, {"text": " thanks.\n"}]
    chat = read_chat({"messages": [HI, flagged(YO, content=parts)]})
    assert learned(tokenizer, chat) == [" thanks.<|im_end|>"]


def test_header_that_follows_a_text_does_not_count() -> None:
    """As in the templates of DeepSeek-V3 and GLM-4, where no token ends a question."""
    template = (
        "{% for m in messages %}{{ '<|im_start|>' if m.role == 'user' else '<|pad|>' }}"
        "{{ m.content }}{{ eos_token if m.role == 'assistant' }}{% endfor %}"
        "{{ '<|pad|>' if add_generation_prompt }}"
    )
    tokenizer = make_tokenizer(chat_template=template)
    assert learned(tokenizer, Chat([HI, YO]), "all") == ["user", "yo<|im_end|>"]


TWICE = CHATML.replace("m['content']", "(m['content'] + m['content'])")
UPPER = CHATML.replace("m['content']", "m['content'] | upper")


def test_text_that_cannot_be_located_is_refused() -> None:
    tokenizer = make_tokenizer(chat_template=TWICE)
    with pytest.raises(
        ValueError, match="does not write the text of message 1, of the role 'user'"
    ):
        encode_chat(Chat([HI, YO]), tokenizer, "all")
    details = [{"begin_offset": 0, "end_offset": 0, "train": False}]
    chat = Chat([HI, flagged(YO, train_detail=details)])
    with pytest.raises(ValueError, match=r"writes a text with 'train_detail'.* as it is, got 'YO'"):
        encode_chat(chat, make_tokenizer(chat_template=UPPER))


def test_end_of_text_counts_only_after_an_answer_that_counts() -> None:
    plain = "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}" + (
        "{% if add_generation_prompt %}### assistant:\n{% endif %}"
    )
    tokenizer = make_tokenizer("chatml_other_eos", chat_template=plain)
    assert learned(tokenizer, Chat([HI, YO]), "all") == ["user", "yo\n\n<|endoftext|>"]
    assert learned(tokenizer, Chat([HI, YO, HI]), "all")[-1] == "user"
    assert learned(tokenizer, Chat([flagged(HI, weight=1), flagged(YO, weight=0)])) == ["user"]
