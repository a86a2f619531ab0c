"""Tables of pages in ``docs/``, which a benchmark fills between marker comments."""

from collections.abc import Iterable, Mapping, Sequence


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, all columns but the first aligned to the right.

    >>> print(markdown(["arm", "loss"], [["plain", "3.79"]]))
    | arm | loss |
    | --- | ---: |
    | plain | 3.79 |
    """
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def filled(page: str, tables: Mapping[str, str]) -> str:
    """Return a page with new tables between their marker comments.

    >>> filled("<!-- a -->old<!-- /a -->.", {"a": "new"}).splitlines()
    ['<!-- a -->', 'new', '<!-- /a -->.']
    """
    for name, table in tables.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, rest = page.split(start)
        page = f"{before}{start}\n{table}\n{end}{rest.split(end)[1]}"
    return page
