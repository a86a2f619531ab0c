"""Texts in parts that count or do not, in Axolotl's format without a template."""

import json
from typing import Any

from lit_entrodrop.data.chats.tools import parsed
from lit_entrodrop.data.documents import Kind
from lit_entrodrop.data.records.base import Row

NAME = "segments"
REQUIRED = ("segments",)
OPTIONAL = ()


def read(row: Row) -> tuple[Kind, str]:
    """Read the parts of a text as prompts and completions in turn.

    >>> read({"segments": [{"text": "Why? ", "label": False}, {"text": "Fever.", "label": True}]})
    ('completion', '["Why? ", "Fever."]')
    """
    segments = parsed(row["segments"])
    if not (isinstance(segments, list) and segments and all(map(_is_segment, segments))):
        raise ValueError(
            f"expected 'segments' to be a non-empty list of texts with labels, got {segments!r:.80}"
            '. Write it as [{"text": "...", "label": true}, ...].'
        )
    texts = [""]
    for segment in segments:
        # Texts at odd places count.
        if segment["label"] != (len(texts) % 2 == 0):
            texts.append("")
        texts[-1] += segment["text"]
    return "completion", json.dumps(texts, ensure_ascii=False)


def _is_segment(segment: Any) -> bool:
    if not isinstance(segment, dict):
        return False
    return isinstance(segment.get("text"), str) and isinstance(segment.get("label"), bool)
