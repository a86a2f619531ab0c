"""Preview on a terminal: in colors, or with markers where there are none."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lit_entrodrop.commands.preview.batches import Place
from lit_entrodrop.commands.preview.content import Preview
from lit_entrodrop.commands.preview.statistics import SplitStatistics
from lit_entrodrop.commands.preview.tokens import ShownBlock, ShownChunk, ShownToken

# In place of signs that the encoding of a terminal may lack.
ASCII: dict[str, str | int | None] = {
    "↵": "\\n",
    "⇥": "\\t",
    "→": "->",
    "×": "*",
    "─": "-",
    "…": "...",
    "⟨": "<",
    "⟩": ">",
    "‹": "{(",
    "›": ")}",
    "⟦": "[[",
    "⟧": "]]",
}


class Kind(NamedTuple):
    """How a kind of token looks: its style in colors, else the markers around it."""

    meaning: str
    style: str
    before: str = ""
    after: str = ""


COUNTED = Kind("counts in the loss", "green")
UNCOUNTED = Kind("does not count", "bright_black", "‹", "›")
SPECIAL = Kind("special token", "cyan", "⟦", "⟧")
DROPPED = Kind("input dropped", "strike red", "[-", "-]")
REPLACED = Kind("input replaced", "strike red", "[-", "-]")
REPLACEMENT = Kind("by another", "magenta", "{+", "+}")
CHANGED = Kind("embedding changed", "underline", "{~", "~}")
EXCLUDED = Kind("excluded from the loss", "reverse yellow", "{!", "!}")
WEIGHTED = Kind("weighted in the loss", "yellow")
CHANGES = {"": None, "dropped": DROPPED, "changed": CHANGED, "replaced": REPLACED}
ORDER = (COUNTED, UNCOUNTED, SPECIAL, DROPPED, REPLACED, REPLACEMENT, CHANGED, EXCLUDED, WEIGHTED)
MARKERS = tuple({marker: 0 for kind in ORDER for marker in kind[2:] if marker})


class Painter:
    """Draw a preview on a console, within what its encoding and its colors allow."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.in_color = console.color_system is not None and not console.no_color
        self.signs = _can_encode("".join(ASCII), console.encoding)

    def show(self, preview: Preview, tokens: int) -> None:
        """Print all of a preview, and at most ``tokens`` tokens of a block."""
        self.console.print(self._table(preview.statistics))
        for each in preview.statistics:
            for count in each.counts():
                self._print(f"{each.name}: {count}")
        self._print("")
        self.console.print(self._legend())
        for block in preview.blocks:
            self._print("")
            self._print(title_of(block), "bold")
            self._show_block(block, tokens)
        self._print("")
        for name, effect in preview.effects:
            self._print(f"{name}: {effect}")
        if preview.mean_loss is not None:
            self._print(f"loss of the first micro-batch: {preview.mean_loss:.3f} nats per token")
        for note in preview.notes:
            self._print(note, "yellow")

    def _show_block(self, block: ShownBlock, tokens: int) -> None:
        for chunk in block.chunks:
            self._print(f"── {chunk_title(chunk)}", "bold blue")
            line = Text()
            for part, kinds in self._parts(chunk.tokens[:tokens]):
                line.append(part, " ".join(kind.style for kind in kinds) if self.in_color else "")
            self.console.print(line, overflow="fold")
            if (more := len(chunk.tokens) - tokens) > 0:
                self._print(f"… {more:,} more tokens of this document: raise --tokens", "dim")
            tokens = max(0, tokens - len(chunk.tokens))
            if not tokens and chunk is not block.chunks[-1]:
                self._print("… more documents in this block: raise --tokens", "dim")
                break
        if block.padding:
            self._print(f"── {block.padding:,} positions of padding", "bold blue")

    def _parts(self, tokens: Sequence[ShownToken]) -> Iterator[tuple[str, list[Kind]]]:
        """Yield texts with their kinds, the neighbors of one kind together."""
        for counts, run in groupby(tokens, key=lambda token: token.counts):
            base = COUNTED if counts else UNCOUNTED
            yield self._marker(base.before), [base]
            for look, alike in groupby(run, key=_look):
                kinds, replacement, weight, _ = look
                yield self._marker("".join(kind.before for kind in kinds)), [base]
                yield self._text("".join(token.text for token in alike)), [base, *kinds]
                yield self._marker("".join(kind.after for kind in reversed(kinds))), [base]
                if replacement:
                    before, after = map(self._marker, REPLACEMENT[2:])
                    yield f"{before}{self._text(replacement)}{after}", [REPLACEMENT]
                if WEIGHTED in kinds:
                    yield self._marker(f"×{weight:.2g}"), [base]
            yield self._marker(base.after), [base]

    def _text(self, text: str) -> str:
        text = self._signed(text)
        if self.in_color:
            return text
        for marker in map(self._signed, MARKERS):
            text = text.replace(marker, f"\\{marker}")
        return text

    def _marker(self, marker: str) -> str:
        return "" if self.in_color else self._signed(marker)

    def _signed(self, text: str) -> str:
        """Return a text that the encoding of the console has."""
        if not self.signs:
            text = text.translate(str.maketrans(ASCII))
        encoding = self.console.encoding
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def _print(self, text: str, style: str = "") -> None:
        self.console.print(Text(self._signed(text), style), overflow="fold")

    def _legend(self) -> Text:
        legend = Text("legend:")
        for kind in ORDER:
            sample = f"{self._marker(kind.before)}{kind.meaning}{self._marker(kind.after)}"
            legend.append(" " if kind is not REPLACEMENT else "")
            legend.append(sample, kind.style if self.in_color else "")
        legend.append(self._marker("×0.5"))
        return legend

    def _table(self, statistics: Sequence[SplitStatistics]) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("")
        rows = [list(each.rows()) for each in statistics]
        for each in statistics:
            table.add_column(Text(self._signed(each.name)), justify="right", overflow="fold")
        for same in zip(*rows, strict=True):
            table.add_row(same[0][0], *(value for _, value in same))
        return table


def title_of(block: ShownBlock) -> str:
    """Return the title of a block: its number and its place in training."""
    title = f"{block.split} block {block.number:,}"
    return title if block.place is None else f"{title}, {place_title(block.place)}"


def place_title(place: Place) -> str:
    """Describe a place in training, in numbers from 0.

    >>> place_title(Place(step=5, steps=10, epoch=1, micro_batch=0))
    'step 5 of 10 (progress 0.50), epoch 1, micro-batch 0'
    """
    return (
        f"step {place.step:,} of {place.steps:,} (progress {place.progress:.2f}), epoch "
        f"{place.epoch:,}, micro-batch {place.micro_batch}"
    )


def chunk_title(chunk: ShownChunk) -> str:
    """Describe a chunk: its document, where it is cut, and how many of its tokens count.

    >>> chunk_title(ShownChunk(document=7, first=50, length=99, tokens=[]))
    'document 7 from token 50 of 99, cut before and after: 0 tokens, 0 count'
    """
    title, end = f"document {chunk.document}", chunk.first + len(chunk.tokens)
    if len(chunk.tokens) < chunk.length:
        cuts = {"before": chunk.first > 0, "after": end < chunk.length}
        where = " and ".join(name for name, is_cut in cuts.items() if is_cut)
        title += f" from token {chunk.first:,} of {chunk.length:,}, cut {where}"
    return f"{title}: {len(chunk.tokens):,} tokens, {chunk.counted:,} count"


def _look(token: ShownToken) -> tuple[list[Kind], str, float, int]:
    """Return what a token is besides whether it counts, its replacement, its weight, and its group.

    A replaced token is a group of its own.
    """
    weight = EXCLUDED if token.weight == 0 else WEIGHTED if token.weight != 1 else None
    special = SPECIAL if token.special else None
    found = special, CHANGES[token.change], weight if token.counts else None
    kinds = [kind for kind in found if kind]
    group = id(token) if token.replacement else 0
    return kinds, token.replacement, round(token.weight, 2), group


def _can_encode(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
