"""Text for a terminal, in which control characters are visible."""

import unicodedata

# Joiners within words and emoji, which do nothing else.
HARMLESS = "\u200c\u200d"
PICTURES = {code: 0x2400 + code for code in range(32)} | {
    0x7F: "\N{SYMBOL FOR DELETE}",
    ord("\n"): "↵\n",
    ord("\t"): "⇥",
}
# Control and format characters, surrogates, private use, and separators of lines.
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def visible(text: str) -> str:
    r"""Return a text with visible control characters, which a terminal does not interpret.

    A line still ends after the sign of its end.

    >>> visible("a\tb\n"), visible("\x1b[31m"), visible("a\u202eb")
    ('a⇥b↵\n', '␛[31m', 'a⟨U+202E⟩b')
    """
    # Plain text is the usual case.
    return text if text.isprintable() else "".join(map(_visible, text.translate(PICTURES)))


def one_line(message: object) -> str:
    r"""Return a message on one line, whose control characters are visible.

    >>> one_line("a\n  b.txt\x1b[2J")
    'a b.txt␛[2J'
    """
    return visible(" ".join(str(message).split()))


def _visible(character: str) -> str:
    if character == "\n" or character in HARMLESS or unicodedata.category(character) not in HIDDEN:
        return character
    return f"⟨U+{ord(character):04X}⟩"
