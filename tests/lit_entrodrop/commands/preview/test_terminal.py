import io
import re
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from lit_entrodrop.commands.preview.content import Preview
from lit_entrodrop.commands.preview.terminal import Painter
from tests.lit_entrodrop.commands.preview.conftest import of_tokens, token


def printed(preview: Preview, tokens: int = 1000, encoding: str = "utf-8", **settings: Any) -> str:
    """Print on a terminal of 80 columns, and return the text."""
    file = io.TextIOWrapper(io.BytesIO(), encoding, errors="strict", newline="\n")
    console = Console(**{"file": file, "width": 80, "legacy_windows": False, **settings})
    Painter(console).show(preview, tokens)
    file.seek(0)
    return file.read()


SAMPLE = (
    token("ask", counts=False, weight=0.0),
    token("</s>", counts=False, special=True, weight=0.0),
    token(" one", change="dropped"),
    token(" two", change="dropped"),
    token(" old", change="replaced", replacement=" new"),
    token(" far", change="changed"),
    token(" out", weight=0.0),
    token(" half", weight=0.5),
    token(" [-x-] ‹y›↵\n"),
)


def test_markers_show_what_colors_would(preview: Preview) -> None:
    text = printed(of_tokens(preview, *SAMPLE))
    marked = "‹ask⟦</s>⟧›[- one two-][- old-]{+ new+}{~ far~}{! out!} half×0.5"
    assert f"{marked} \\[-x\\-] \\‹y\\›↵" in text.replace("\n", "")
    assert "\x1b" not in text


def test_signs_are_written_in_ascii_where_the_encoding_lacks_them(preview: Preview) -> None:
    text = printed(of_tokens(preview, *SAMPLE, token("⟨E4⟩ é 心")), encoding="latin-1")
    assert r"{(ask[[</s>]])}[- one two-][- old-]{+ new+}" in text
    assert r"half*0.5 \[-x\-]" in text
    assert r"\{(y\)}\n" in text
    assert r"<E4> é \u5fc3" in text


def test_colors_need_no_markers(preview: Preview) -> None:
    settings = {"force_terminal": True, "color_system": "standard"}
    text = printed(of_tokens(preview, *SAMPLE), **settings)
    assert "\x1b[9;31m one two" in text
    assert "\x1b[35m new" in text
    assert "‹ask" not in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "ask</s> one two old new far out half [-x-] ‹y›↵" in plain


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_terminals_without_colors_get_markers(preview: Preview, variables: dict[str, str]) -> None:
    settings = {"force_terminal": True, "_environ": {"TERM": "xterm", **variables}}
    text = printed(of_tokens(preview, *SAMPLE), **settings)
    assert "[- one two-]" in re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("color_system", [None, "truecolor"])
def test_text_sends_no_commands_and_fits_its_columns(
    preview: Preview, color_system: str | None
) -> None:
    text = printed(preview, force_terminal=True, color_system=color_system)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    for command in "\x1b\x07\x9b\u202e\t":
        assert command not in plain
    assert max(map(cell_len, plain.splitlines())) <= 80
    assert "␛" in plain
    assert "⟨U+202E⟩" in plain


def test_long_blocks_end_with_a_hint(preview: Preview) -> None:
    long = of_tokens(preview, *(token(" a") for _ in range(30)), token("b" * 300))
    assert printed(long).replace("\n", "").count("b" * 300) == 1
    text = printed(long, tokens=10)
    assert " a" * 10 in text
    assert " a" * 11 not in text
    assert "… 21 more tokens of this document: raise --tokens" in text
