"""Docstrings and theorems are cut out of their sources."""

from lit_entrodrop.data.corpora.technical import docstrings, metamath_theorems

SOURCE = '''
"""A module."""

class Box:
    """A box.

        Indented."""

    def open(self): return "not a docstring" + ""

async def run(): """Run."""
'''

DATABASE = """
$( A heading that belongs to nothing. $)
$( The inference rule. $)
ax-mp $a |- ps $.
$( Identity,
   with wrapped lines. $)
id $p |- ( ph -> ph ) $= wph wph $.
"""


def test_docstrings_come_outermost_first_and_dedented() -> None:
    assert docstrings(SOURCE) == ["A module.", "A box.\n\nIndented.", "Run."]


def test_only_proved_theorems_with_their_own_comment_are_kept() -> None:
    expected = ["id: Identity, with wrapped lines.\n|- ( ph -> ph )"]
    assert metamath_theorems(DATABASE) == expected
