"""Instructions in the format of Alpaca."""

import json
from dataclasses import replace
from typing import NamedTuple

from lit_entrodrop.data.chats.record import Chat, Message
from lit_entrodrop.data.chats.tools import parsed
from lit_entrodrop.data.documents import Document, Kind
from lit_entrodrop.data.records.base import Row, text_in

NAME = "alpaca"
REQUIRED = ("instruction", "output")
OPTIONAL = ("input", "system", "history")
_TEXTS = ("instruction", "input", "output", "system")

# From the prompts published with Alpaca (Taori et al. 2023, tatsu-lab/stanford_alpaca).
_TASK = "Below is an instruction that describes a task"
_CONTEXT = ", paired with an input that provides further context"
_REQUEST = ". Write a response that appropriately completes the request."


class Instruction(NamedTuple):
    """An instruction with its answer.

    Attributes:
        instruction: What the user asks.
        input: Further context of the instruction; may be empty.
        output: The answer.
        system: System prompt; may be empty.
        history: Earlier instructions, each with its answer.
    """

    instruction: str
    input: str
    output: str
    system: str
    history: list[list[str]]

    @classmethod
    def from_json(cls, text: str) -> "Instruction":
        """Read the content of a document of the kind "instruction"."""
        return cls(*json.loads(text))

    def to_chat(self) -> Chat:
        r"""Return a chat in which the user's message has the instruction and the input.

        >>> Instruction("Add.", "1 2", "3", "", []).to_chat().messages[0]
        {'role': 'user', 'content': 'Add.\n\n1 2'}
        """
        question = "\n\n".join(filter(None, [self.instruction, self.input]))
        turns = [("system", self.system)] if self.system else []
        for asked, answered in [*self.history, [question, self.output]]:
            turns += [("user", asked), ("assistant", answered)]
        messages: list[Message] = [{"role": role, "content": text} for role, text in turns]
        return Chat(messages)

    def to_pair(self) -> tuple[str, str]:
        """Return the published prompt of Alpaca, and the answer.

        A system prompt takes the place of the sentence that describes the task.

        Raises:
            ValueError: If there are earlier instructions, which that prompt does not have.

        >>> print(Instruction("Add.", "1 2", "3", "Be brief.", []).to_pair()[0])
        Be brief.
        <BLANKLINE>
        ### Instruction:
        Add.
        <BLANKLINE>
        ### Input:
        1 2
        <BLANKLINE>
        ### Response:
        <BLANKLINE>
        """
        if self.history:
            raise ValueError(
                "the column 'history' needs a chat template, and the tokenizer has none. Set "
                "data.chat_template, or remove the column."
            )
        task = self.system or _TASK + _CONTEXT * bool(self.input) + _REQUEST
        parts = [task, f"### Instruction:\n{self.instruction}"]
        if self.input:
            parts.append(f"### Input:\n{self.input}")
        return "\n\n".join([*parts, "### Response:\n"]), self.output


def with_prompt(document: Document, has_template: bool) -> Document:
    """Return an instruction as a chat, or as a completion without a chat template.

    Other documents are returned as they are.

    >>> chat = Document("instruction", '["Why?", "", "Fever.", "", []]')
    >>> with_prompt(chat, has_template=True).kind, with_prompt(chat, has_template=False).kind
    ('messages', 'completion')
    """
    if document.kind != "instruction":
        return document
    instruction = Instruction.from_json(document.content)
    if has_template:
        return replace(document, kind="messages", content=instruction.to_chat().to_json())
    try:
        pair = instruction.to_pair()
    except ValueError as error:
        raise ValueError(f"{document.where}: {error}") from error
    return replace(document, kind="completion", content=json.dumps(pair, ensure_ascii=False))


def read(row: Row) -> tuple[Kind, str]:
    """Read an instruction.

    >>> read({"instruction": "Add.", "input": "1 2", "output": "3"})
    ('instruction', '["Add.", "1 2", "3", "", []]')
    """
    asked, context, answer, system = (text_in(row, column) for column in _TEXTS)
    history = parsed(row.get("history")) or []
    if not (isinstance(history, list) and all(map(_is_pair, history))):
        raise ValueError(
            "expected 'history' to be a list of pairs of texts, got "
            f'{history!r:.80}. Write it as [["instruction", "answer"], ...].'
        )
    return "instruction", json.dumps(
        Instruction(asked, context, answer, system, history), ensure_ascii=False
    )


def _is_pair(value: object) -> bool:
    if not (isinstance(value, list | tuple) and len(value) == 2):
        return False
    return all(isinstance(text, str) for text in value)
