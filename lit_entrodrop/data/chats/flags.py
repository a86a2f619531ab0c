"""Flags in a message that say whether the loss counts it."""

from typing import Any

TRAIN_FLAGS = ("train", "training")
DETAIL = "train_detail"
SYSTEM = ("system", "developer")  # roles that never count
_OFFSETS = ("begin_offset", "end_offset")


def with_flags(message: dict[str, Any]) -> dict[str, Any]:
    """Check the flags of a message, and write them as `weight` and `train_detail`.

    `train`, `training` and `weight` say whether the message counts; a part of a text may have them
    too. `train_detail` lists parts by the offsets of their first and last characters.

    Raises:
        ValueError: If a flag has no meaning, or flags contradict each other.

    >>> with_flags({"role": "user", "content": "Why?", "train": True})
    {'role': 'user', 'content': 'Why?', 'weight': 1}
    """
    flagged = {key: value for key, value in message.items() if key not in TRAIN_FLAGS}
    flag = flag_of(message)
    if "weight" not in message and flag is not None:
        flagged["weight"] = int(flag)
    parts = message.get("content")
    if isinstance(parts, list) and any(_flag_of_part(part) is not None for part in parts):
        if DETAIL in message:
            raise ValueError(f"expected flags of parts or {DETAIL!r}, got both. Remove one.")
        flagged[DETAIL] = _details_of_parts(parts)
    elif DETAIL in message:
        _check_details(message[DETAIL], message.get("content"))
    details = flagged.get(DETAIL, [])
    if message["role"] in SYSTEM and (flag or any(detail["train"] for detail in details)):
        raise ValueError(
            f"expected no flag that counts a message of the role {message['role']!r}, which never "
            "counts in the loss. Remove the flag."
        )
    return flagged


def flag_of(message: dict[str, Any]) -> bool | None:
    """Return whether a message, or a part of one, says that it counts; None if it does not say.

    Raises:
        ValueError: If a flag is neither true nor false, or flags contradict each other.
    """
    flags = {}
    for key in (*TRAIN_FLAGS, "weight"):
        value = message.get(key)
        if value is None:
            continue
        if value not in (0, 1) or (key != "weight" and not isinstance(value, bool)):
            values = "0 or 1" if key == "weight" else "true or false"
            raise ValueError(f"expected a {key!r} of {values}, got {value!r}.")
        flags[key] = bool(value)
    if len(set(flags.values())) > 1:
        raise ValueError(f"expected flags that agree, got {flags}. Remove one of them.")
    return next(iter(flags.values()), None)


def _flag_of_part(part: Any) -> bool | None:
    return flag_of(part) if isinstance(part, dict) else None


def _details_of_parts(parts: list[Any]) -> list[dict[str, Any]]:
    details, place = [], 0
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else part
        end = place + (len(text) if isinstance(text, str) else 0)
        if end > place:
            offsets = dict(zip(_OFFSETS, (place, end - 1), strict=True))
            details.append({**offsets, "train": _flag_of_part(part)})
        place = end
    return details


def _check_details(details: Any, content: Any) -> None:
    place, size = 0, len(content) if isinstance(content, str) else 0
    for detail in details if isinstance(details, list) else [details]:
        offsets = [detail.get(key) if isinstance(detail, dict) else None for key in _OFFSETS]
        begin, end = offsets
        if not (
            isinstance(begin, int)
            and isinstance(end, int)
            and place <= begin <= end < size
            and isinstance(detail.get("train"), bool)
        ):
            raise ValueError(
                f"expected {DETAIL!r} to be a list of 'begin_offset', 'end_offset' and 'train', in "
                f"order and within the {size} characters of 'content', got {detail!r:.80}. The "
                "end is the offset of the last character."
            )
        place = end + 1
