from typing import Any

import pytest

from lit_entrodrop.data.chats.record import read_chat

OFFSETS = {"begin_offset": 0, "end_offset": 1}


def message(role: str = "assistant", content: Any = "yo", **flags: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **flags}


@pytest.mark.parametrize(
    ("flags", "weight"),
    [({"train": True}, 1), ({"training": False}, 0), ({"weight": 0}, 0), ({"train": None}, None)],
)
def test_flags_have_one_form(flags: dict[str, Any], weight: int | None) -> None:
    [read] = read_chat({"messages": [message(**flags)]}).messages
    assert read.pop("weight", None) == weight
    assert read == message()


def test_flags_of_parts_become_details() -> None:
    parts: list[Any] = [
        {"type": "text", "text": "y", "train": False},
        {"type": "text", "text": "o"},
    ]
    [read] = read_chat({"messages": [message(content=parts)]}).messages
    assert read == message(
        train_detail=[
            {"begin_offset": 0, "end_offset": 0, "train": False},
            {"begin_offset": 1, "end_offset": 1, "train": None},
        ]
    )


@pytest.mark.parametrize(
    ("turn", "named"),
    [
        (message(train="yes"), ["message 1", "'train' of true or false", "'yes'"]),
        (message(weight=0.5), ["'weight' of 0 or 1", "0.5"]),
        (message(train=True, weight=0), ["agree", "Remove one"]),
        (message("system", train=True), ["'system'", "never counts", "Remove"]),
        (message("system", [{"text": "yo", "train": True}]), ["'system'", "never counts"]),
        (message("system", train_detail=[{**OFFSETS, "train": True}]), ["'system'", "never"]),
        (message(train_detail={"train": True}), ["'train_detail' to be a list", "2 characters"]),
        (message(train_detail=[{**OFFSETS, "end_offset": 2, "train": True}]), ["'end_offset': 2"]),
        (message(train_detail=[{**OFFSETS, "train": True}] * 2), ["in order"]),
        (message(train_detail=[OFFSETS]), ["'train'"]),
        (
            message(content=[{"text": "y", "weight": 0}], train_detail=[]),
            ["flags of parts or 'train_detail', got both"],
        ),
    ],
)
def test_flag_without_meaning_is_refused(turn: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_chat({"messages": [turn]})
    assert all(part in str(caught.value) for part in named), caught.value
