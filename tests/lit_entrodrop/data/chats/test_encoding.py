import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.adjustments import BLANK_ANSWER, NO_ANSWER, REASONING_LEFT_OUT
from lit_entrodrop.data.chats.encoding import encode_chat
from lit_entrodrop.data.chats.record import Chat, read_chat
from tests.helpers.tokenizer_habits import CHATML, TAGGED, TOOLS, make_tokenizer
from tests.helpers.tokenizer_habits import learned as learned_of

HI = {"role": "user", "content": "hi"}
YO = {"role": "assistant", "content": "yo"}
WEATHER = {"type": "function", "function": {"name": "w", "description": "weather of a city"}}
CALL = {"type": "function", "function": {"name": "w", "arguments": {"city": "X"}}}
CALLED = '<tool_call>{"name": "w", "arguments": {"city": "X"}}</tool_call><|im_end|>'


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def learned(tokenizer: PreTrainedTokenizerBase, *messages: dict[str, Any], **row: Any) -> list[str]:
    """Return the runs of tokens that the loss counts, as text."""
    return learned_of(tokenizer, read_chat({"messages": list(messages), **row}))


@pytest.mark.parametrize(
    ("habit", "messages", "expected"),
    [
        ("chatml", [HI, YO], ["yo<|im_end|>"]),
        ("chatml", [HI, YO, HI, assistant("no")], ["yo<|im_end|>", "no<|im_end|>"]),
        ("chatml_other_eos", [HI, YO], ["yo<|im_end|>"]),
        ("tagged", [HI, YO, HI, assistant("no\n")], ["yo<|im_end|>", "no\n<|im_end|>"]),
        ("bos", [HI, YO], ["yo<|im_end|>"]),
        # A system prompt of the template is not learned.
        ("default_system", [HI, YO], ["yo<|im_end|>"]),
        ("default_system", [assistant("Welcome!"), HI, YO], ["Welcome!<|im_end|>", "yo<|im_end|>"]),
        ("tools", [assistant("Welcome!"), HI, YO], ["Welcome!<|im_end|>", "yo<|im_end|>"]),
        ("no_system", [HI, assistant("  yo \n")], ["yo<|im_end|>"]),
        # What the template writes only in the last turn does not shift the others.
        (
            "think",
            [HI, assistant("<think>\nso\n</think>\n\nyo"), HI, assistant("no")],
            ["yo<|im_end|>", "<think>\n\n</think>\n\nno<|im_end|>"],
        ),
        ("think", [HI, YO, HI, YO, HI], ["yo<|im_end|>", "yo<|im_end|>"]),
        (
            "think",
            [assistant("Welcome!"), HI, YO],
            ["Welcome!<|im_end|>", "<think>\n\n</think>\n\nyo<|im_end|>"],
        ),
        # Null content with a call, OpenAI's arguments as JSON.
        ("tools", [HI, {"role": "assistant", "content": None, "tool_calls": [CALL]}], [CALLED]),
        (
            "tools",
            [
                HI,
                assistant("", tool_calls=[{"id": "c1", "name": "w", "arguments": '{"city": "X"}'}]),
            ],
            [CALLED],
        ),
        (
            "tools",
            [HI, assistant("Hm. ", tool_calls=[CALL]), {"role": "tool", "content": "22"}, YO],
            ["Hm. " + CALLED, "yo<|im_end|>"],
        ),
        # Parts of text.
        (
            "chatml",
            [
                HI,
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "y"}, {"type": "text", "text": "o"}],
                },
            ],
            ["yo<|im_end|>"],
        ),
        # OpenAI's weight.
        ("chatml", [HI, assistant("no", weight=0), HI, YO], ["yo<|im_end|>"]),
        ("tagged", [HI, assistant("no", weight=0), HI, YO], ["yo<|im_end|>"]),
    ],
)
def test_learned(habit: str, messages: list[dict[str, Any]], expected: list[str]) -> None:
    assert learned(make_tokenizer(habit), *messages) == expected


def test_tools_reach_the_template() -> None:
    tokenizer = make_tokenizer("tools")
    for tools in ([WEATHER], json.dumps([WEATHER])):
        chat = read_chat({"messages": [HI, YO], "tools": tools})
        ids = encode_chat(Chat.from_json(chat.to_json()), tokenizer).ids
        assert "weather of a city" in tokenizer.decode(ids)
    with pytest.raises(ValueError, match="leaves out the tools"):
        encode_chat(chat, make_tokenizer("chatml"))


ONLY_USERS = CHATML.replace(
    "{% for m in messages %}", "{% for m in messages if m.role == 'user' %}"
)
ONLY_LAST = "{% set messages = messages[-2:] %}" + CHATML
NO_SYSTEM_TEXT = CHATML.replace("in messages %}", "in messages if m.role != 'system' %}")
TRUNCATING = CHATML.replace("m['content']", "m['content'][-5:]")
WRONG_TAGS = CHATML.replace("{% for", "{% generation %}{% for", 1) + "{% endgeneration %}"
NO_REASONING = CHATML.replace("m['content']", "m['content'].split('</think>')[-1]")


@pytest.mark.parametrize(
    ("template", "messages", "named"),
    [
        (CHATML, [HI, YO, {"role": "narrator", "content": "x"}], ["message 3", "'narrator'"]),
        ("{# main #}" + CHATML, [HI, YO, {"role": "main", "content": "x"}], ["'main'"]),
        (
            CHATML,
            [HI, assistant("I call w in X", tool_calls=[CALL])],
            ["leaves out the tool call 'w'"],
        ),
        (
            TOOLS.replace("in m.tool_calls", "in m.tool_calls[:1]"),
            [HI, assistant("", tool_calls=[CALL, {"name": "v", "arguments": {}}])],
            ["leaves out the tool call 'v'"],
        ),
        (
            TOOLS.replace("f.arguments", "{}"),
            [HI, assistant("", tool_calls=[CALL])],
            ["leaves out the tool call 'w' or its arguments"],
        ),
        (ONLY_USERS, [HI, YO], ["leaves out text of message 2, of the role 'assistant'"]),
        (TRUNCATING, [user("hi there"), YO], ["leaves out text of message 1, of the role 'user'"]),
        (TRUNCATING, [HI, assistant("Yes, it is.")], ["leaves out text of message 2"]),
        (
            NO_SYSTEM_TEXT,
            [{"role": "system", "content": "Be brief."}, HI, YO],
            ["message 1, of the role 'system'"],
        ),
        (
            NO_REASONING,
            [HI, assistant("<think>so</think>yo")],
            ["the reasoning of the last message"],
        ),
        (
            CHATML,
            [HI, assistant("yo", reasoning_content="so")],
            ["the reasoning of the last message"],
        ),
        (ONLY_LAST, [HI, YO, HI, YO], ["rewrites earlier turns, at message", "generation %}"]),
        (WRONG_TAGS, [HI, YO, HI, YO], ["does not enclose each of 2 answers"]),
        ("{{ messages[9].content }}", [HI, YO], ["refuses the chat", "has no element 9"]),
        ("{{ messages", [HI, YO], ["refuses the chat", "unexpected end of template"]),
        ("{{ messages[0].content + 1 }}", [HI, YO], ["can only concatenate str"]),
    ],
)
def test_template_that_changes_a_chat_is_refused(
    template: str, messages: list[dict[str, Any]], named: list[str]
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        encode_chat(read_chat({"messages": messages}), make_tokenizer(chat_template=template))
    assert all(part in str(caught.value) for part in named), caught.value


# The last turn ends in another way: EOS follows, as in Phi-3, or another token, as in gpt-oss.
EOS_AT_THE_END = CHATML + "{% if not add_generation_prompt %}{{ '<|endoftext|>' }}{% endif %}"
OTHER_END = CHATML.replace(
    "'<|im_end|>'", "('<|im_end|>' if add_generation_prompt or not loop.last else '<|pad|>')"
)
SEVERAL_BLOCKS = TAGGED.replace(
    "{{ m.content + '<|im_end|>' }}",
    "{{ m.content }}{% endgeneration %}{% generation %}{{ '<|im_end|>' }}",
)


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (EOS_AT_THE_END, ["<|im_end|>", "<|im_end|>\n<|endoftext|>"]),
        (OTHER_END, ["<|im_end|>", "<|pad|>"]),
        (SEVERAL_BLOCKS, ["<|im_end|>", "<|im_end|>"]),
    ],
)
def test_turns_may_end_in_several_ways(template: str, ends: list[str]) -> None:
    tokenizer = make_tokenizer("chatml_other_eos", chat_template=template)
    assert learned(tokenizer, HI, YO, HI, YO) == [f"yo{end}" for end in ends]


def test_template_may_append_arguments_as_text() -> None:
    appending = TOOLS.replace(
        "{{ {'name': f.name, 'arguments': f.arguments} | tojson }}", "{{ f.name + f.arguments }}"
    )
    tokenizer = make_tokenizer(chat_template=appending)
    [turn] = learned(tokenizer, HI, assistant("", tool_calls=[CALL]))
    assert turn == '<tool_call>w{"city": "X"}</tool_call><|im_end|>'


def test_refusal_of_a_part_says_so() -> None:
    asking = "{% if 'user' not in messages | map(attribute='role') %}" + (
        "{{ raise_exception('No user query') }}{% endif %}" + CHATML
    )
    with pytest.raises(ValueError, match=r"No user query \(when its first 1 of 2 messages"):
        encode_chat(Chat([YO, HI]), make_tokenizer(chat_template=asking))


def test_template_says_why_it_refuses() -> None:
    system = {"role": "system", "content": "Be brief."}
    with pytest.raises(ValueError, match=r"refuses the chat: System role not supported$"):
        encode_chat(read_chat({"messages": [system, HI, YO]}), make_tokenizer("no_system"))


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("MOST_SECONDS", 0.2, r"it did not end within 0\.2 s"),
        ("MOST_BYTES", 2**20, "it takes more than 1 MiB of memory"),
    ],
)
def test_endless_template_is_stopped(
    limit: str, value: float, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"lit_entrodrop.runtime.limits.{limit}", value)
    loop = "{% for a in range(99999) %}"
    endless = f"{loop}{loop}x{{% endfor %}}{{% endfor %}}"
    with pytest.raises(ValueError, match=f"refuses the chat: {reason}"):
        encode_chat(Chat([HI, YO]), make_tokenizer(chat_template=endless))


# As in templates of vision models.
PARTS = CHATML.replace(
    "m['content'] +", "m['content'] | selectattr('type') | map(attribute='text') | join +"
)


def test_template_may_accept_only_lists_of_parts() -> None:
    tokenizer = make_tokenizer(chat_template=PARTS)
    assert learned(tokenizer, HI, YO, HI, YO) == ["yo<|im_end|>"] * 2
    assert "user\nhi<|im_end|>" in tokenizer.decode(encode_chat(Chat([HI, YO]), tokenizer).ids)


# Leaves out the reasoning of earlier turns and ends no turn, as GLM-4 MoE does.
GLM = (
    "{% set last = namespace(user=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set last.user = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}"
    "{% set said = m.content.split('</think>')[-1].strip() %}{% if m.role == 'user' %}"
    "{{ '<|im_start|>\n' + m.content }}{% else %}{{ '<|pad|>\n<think>' }}"
    "{% if loop.index0 > last.user %}{{ m.reasoning_content }}"
    "{{ m.content.split('</think>')[0].split('<think>')[-1] if '</think>' in m.content }}"
    "{% endif %}{{ '</think>\n' + said }}{% for c in m.tool_calls %}"
    "{{ '<call>' + c.function | tojson }}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|pad|>' }}{% endif %}"
)


@pytest.mark.parametrize(
    "thinking", [assistant("<think>so</think>yo"), assistant("yo", reasoning_content="so")]
)
def test_reasoning_of_earlier_turns_may_be_left_out(thinking: dict[str, Any]) -> None:
    tokenizer = make_tokenizer("chatml_other_eos", chat_template=GLM)
    early, last = "\n<think></think>\nyo", "\n<think>so</think>\nyo<|endoftext|>"
    assert learned(tokenizer, HI, thinking, HI, thinking) == [early, last]
    assert learned(tokenizer, HI, thinking, HI) == [early]
    calling = assistant("", reasoning_content="so", tool_calls=[CALL])
    [call, *turns] = learned(tokenizer, HI, calling, thinking, HI, thinking)
    assert call.startswith('\n<think></think>\n<call>{"name": "w", "arg')
    assert turns == [early, last]


def test_tokenizer_without_a_template_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"no chat template: expected one.*Set data\.chat_template"
    ):
        encode_chat(Chat([HI, YO]), make_tokenizer("sentencepiece"))


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([HI], NO_ANSWER),
        ([HI, assistant(" \n")], BLANK_ANSWER),
        ([HI, {"role": "assistant", "content": None}], BLANK_ANSWER),
        ([HI, assistant(""), HI, YO], BLANK_ANSWER),
    ],
)
def test_chat_without_an_answer_is_skipped(messages: list[dict[str, Any]], reason: str) -> None:
    chat = read_chat({"messages": messages})
    assert encode_chat(chat, make_tokenizer("no_system")) == ([], [], {reason: 1})


def test_reasoning_that_the_template_removes_is_counted() -> None:
    thinking = assistant("<think>\nso\n</think>\n\nyo")
    chat = Chat([HI, thinking, HI, thinking, HI, YO])
    assert encode_chat(chat, make_tokenizer("think")).adjustments == {REASONING_LEFT_OUT: 2}


def test_message_may_move_or_be_written_as_json() -> None:
    last = CHATML.replace("{% for", "{{ '' }}{% for", 1).replace(
        "m['content']", "(m['content'] | tojson if m.role == 'tool' else m['content'])"
    )
    tool = {"role": "tool", "content": '{"temperature":\n "22"}'}
    assert learned(make_tokenizer(chat_template=last), HI, YO, tool, YO) == ["yo<|im_end|>"] * 2


def test_whole_text_is_rendered_once_with_one_bos() -> None:
    tokenizer = make_tokenizer("bos")
    ids = encode_chat(Chat([HI, YO]), tokenizer).ids
    assert ids.count(tokenizer.bos_token_id) == 1
    rendered = tokenizer.apply_chat_template([HI, YO], tokenize=False)
    assert tokenizer.decode(ids) == f"{rendered}{tokenizer.eos_token}"


PLAIN = "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}" + (
    "{% if add_generation_prompt %}### assistant:\n{% endif %}"
)


def test_eos_is_learned_where_no_special_token_ends_the_answer() -> None:
    tokenizer = make_tokenizer("chatml_other_eos", chat_template=PLAIN)
    assert learned(tokenizer, HI, YO) == ["yo\n\n<|endoftext|>"]
    assert learned(tokenizer, HI, YO, HI) == ["yo\n\n"]


def test_every_token_of_a_character_is_learned() -> None:
    """Transformers' own mask leaves out all but the first token of a last character."""
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
        "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{{ '\n' }}{% endfor %}"
    )
    tokenizer = make_tokenizer(chat_template=template)
    assert learned(tokenizer, HI, assistant("🙂"))[0].startswith("🙂")
