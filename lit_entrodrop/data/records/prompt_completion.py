"""Prompts with completions: text, or messages as in TRL."""

import json

from lit_entrodrop.data.chats.record import is_chat, read_chat
from lit_entrodrop.data.documents import Kind
from lit_entrodrop.data.records.base import Row, text_in
from lit_entrodrop.data.records.unsupported import refuse_judged

NAME = "prompt_completion"
REQUIRED = ("prompt", "completion")
OPTIONAL = ("system", "tools")


def read(row: Row) -> tuple[Kind, str]:
    r"""Read a pair of texts, or a chat in which only the messages of the completion count.

    A system prompt is the beginning of the prompt, before a blank line, or the first message.

    >>> read({"prompt": "Why?", "completion": " Fever.", "system": "Be brief."})
    ('completion', '["Be brief.\\n\\nWhy?", " Fever."]')
    """
    refuse_judged(row)
    prompt, completion = row["prompt"], row["completion"]
    if is_chat(prompt) and is_chat(completion):
        messages = {**row, "messages": [*prompt, *completion]}
        chat = read_chat(messages)
        before = len(chat.messages) - len(completion)
        return "messages", chat._replace(prompt_messages=before).to_json()
    if is_chat(prompt) or is_chat(completion):
        raise ValueError(
            "expected text or messages in both 'prompt' and 'completion', got messages in one. "
            'Write the text as [{"role": "...", "content": "..."}].'
        )
    if row.get("tools"):
        raise ValueError(
            "the column 'tools' is not read next to text in 'prompt' and 'completion'. Write "
            "messages in both, or remove the column."
        )
    texts = [text_in(row, column) for column in ("system", "prompt", "completion")]
    pair = ["\n\n".join(filter(None, texts[:2])), texts[2]]
    return "completion", json.dumps(pair, ensure_ascii=False)
