import json
from pathlib import Path

from benchmarks.gpu_campaign.kit import split, write_corpus
from benchmarks.gpu_campaign.steps.gpu_tests import read_report


def test_halves_make_the_whole(tmp_path: Path) -> None:
    wheel = tmp_path / "model.whl"
    wheel.write_bytes(bytes(range(251)))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    split(wheel, tmp_path / "first", tmp_path / "second")
    halves = [tmp_path / "first/model.whl.0", tmp_path / "second/model.whl.1"]
    assert b"".join(half.read_bytes() for half in halves) == wheel.read_bytes()
    assert max(half.stat().st_size for half in halves) == 126


def test_held_out_documents_are_not_trained_on(tmp_path: Path) -> None:
    write_corpus([str(number) for number in range(25)], tmp_path)
    kept, heldout = (
        [json.loads(line)["text"] for line in (tmp_path / name).read_text().splitlines()]
        for name in ("corpus.jsonl", "heldout.jsonl")
    )
    assert heldout == ["0", "10", "20"]
    assert not set(kept) & set(heldout)
    assert len(kept) == 22


def test_failures_are_named_with_their_cause(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="t" name="a"/>'
        '<testcase classname="t" name="b"><failure message="1 != 2">trace</failure></testcase>'
        '<testcase classname="t" name="c"><skipped message="needs a GPU"/></testcase>'
        "</testsuite></testsuites>"
    )
    found = read_report(report)
    assert {name: found[name] for name in ("tests", "passed", "skipped", "failed")} == {
        "tests": 3,
        "passed": 1,
        "skipped": 1,
        "failed": 1,
    }
    assert found["failures"] == ["t::b: 1 != 2"]
