from html.parser import HTMLParser
from pathlib import Path

from lit_entrodrop.commands.preview.content import Preview
from lit_entrodrop.commands.preview.page import tooltip


class Parsed(HTMLParser):
    """Classes, tooltips and texts of the tokens, and all names of elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.tokens: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements.add(tag)
        if given.get("title"):
            self.tokens.append((str(given["class"]), str(given["title"])))
        assert not any(name.startswith("on") for name in given)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_shows_each_token_and_runs_nothing(preview: Preview, page: Path) -> None:
    content = page.read_text("utf-8")
    found = Parsed(content)
    tokens = [t for block in preview.blocks for chunk in block.chunks for t in chunk.tokens]
    assert [title for _, title in found.tokens[:-1]] == [tooltip(token) for token in tokens]
    for (style, title), token in zip(found.tokens, tokens, strict=False):
        names = style.split()
        assert ("counts" in names) == token.counts == ("· counts in the loss" in title)
        assert ("w0" in names) == (token.counts and token.weight == 0)
        assert token.change in ("", *names)
    # Nothing of the text becomes an element.
    assert not {"b", "i", "script"} & found.elements
    for text in ('<b onclick="x">', "{{ z }}", "→<i>", "a<b>.jsonl", "␛[31m", "⟨U+202E⟩"):
        assert text in found.text
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(content)
    for name, effect in preview.effects:
        assert name in found.text
        assert effect in found.text
