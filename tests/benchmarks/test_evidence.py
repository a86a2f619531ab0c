from benchmarks.evidence import evidence_tables, pages, read
from benchmarks.harness import ROOT
from benchmarks.pages import filled


def test_pages_hold_the_results():
    for name, tables in pages().items():
        page = (ROOT / name).read_text()
        assert filled(page, tables) == page, "run: python -m benchmarks.evidence --write true"


def test_each_arm_of_a_result_has_a_row():
    written = evidence_tables()["recipe best"].splitlines()[2:]
    records = read("recipe")
    [*_, arms] = (record["arms"] for record in records.values())
    assert [row.split(" | ")[0].removeprefix("| ") for row in written] == list(arms)
    assert all(row.count(" | ") == len(records) for row in written)
