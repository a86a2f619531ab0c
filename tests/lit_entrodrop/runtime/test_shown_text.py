import unicodedata

from lit_entrodrop.runtime.shown_text import visible


def test_no_character_reaches_the_screen_as_a_command() -> None:
    every = "".join(map(chr, (*range(0x3000), *range(0xD800, 0xD810), 0xFEFF, 0xE000, 0xE0001)))
    shown = visible(every)
    shown.encode()
    left = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")}
    assert left == {"\n", "\u200c", "\u200d"}
    assert visible("plain äö 心臓 مرحبا 🙂 👩‍⚕️") == "plain äö 心臓 مرحبا 🙂 👩‍⚕️"
