from inspect import cleandoc

from lit_entrodrop.commands.regularizers.docstrings import Documentation, read_docstring

FULL = """Lower the loss of easy tokens.

    Each token counts by its
    difficulty:

        L = −(1 − p)^γ · ln p

        γ ≥ 0

    Ours is per micro-batch.

    - one
      point

    Source:
        Lin et al. 2017,
        arXiv 1708.02002, equation 4.

    Args:
        curriculum: the strength: a number
            is constant.
        gamma: exponent.

    Raises:
        ValueError: if out of range.

    >>> 1 + 1
    2
    """


def test_every_part_is_found() -> None:
    assert read_docstring(FULL) == Documentation(
        summary="Lower the loss of easy tokens.",
        introduction="Each token counts by its difficulty:",
        formula="L = −(1 − p)^γ · ln p\n\nγ ≥ 0",
        prose="Ours is per micro-batch.\n\n- one\n  point",
        source="Lin et al. 2017, arXiv 1708.02002, equation 4.",
        arguments={"curriculum": "the strength: a number is constant.", "gamma": "exponent."},
    )


def test_lines_of_a_formula_keep_their_places() -> None:
    text = cleandoc("""Do.

    So:

        f(x) = x   if x > 0
               0   else
    """)
    assert read_docstring(text).formula == "f(x) = x   if x > 0\n       0   else"


def test_missing_parts_are_empty() -> None:
    assert read_docstring(None) == Documentation()
    assert read_docstring("Do.\n\nText.\n\n>>> 1\n1") == Documentation("Do.", "Text.")
