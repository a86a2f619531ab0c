"""Pages, read as any reader of HTML would."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import pandas as pd
import pytest
from scipy.stats import binomtest

from lit_entrodrop.cli.main import main
from lit_entrodrop.commands.compare.judging.results import FILE_NAME
from lit_entrodrop.commands.report import write_report
from lit_entrodrop.commands.report.rendering import formatting
from lit_entrodrop.evaluation.statistics import OVER_ITEMS
from tests.helpers.run_folder import write_run

VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """What a page holds; a tag that is not closed in its place is an error."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = ""
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.tags: set[str] = set()
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if "id" in given:
            self.ids.append(str(given["id"]))
        if tag == "svg":
            assert given["role"] == "img"
            self.pictures.append(str(given["aria-label"]))
        self.links += [str(given[name]) for name in ("href", "src", "xlink:href") if name in given]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data


@pytest.fixture(params=["full", "bare", "several", "comparison"])
def page(request: pytest.FixtureRequest) -> Page:
    found: Path = request.getfixturevalue(request.param)
    return Page(found if found.is_file() else found / "report.html")


def test_page_needs_nothing_beside_it(page: Page) -> None:
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "script" not in page.tags


def test_page_is_well_formed(page: Page) -> None:
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert page.headings[0] == 1
    steps = zip(page.headings, page.headings[1:], strict=False)
    assert all(after - before <= 1 for before, after in steps)


def test_every_figure_says_what_it_shows(page: Page) -> None:
    assert page.pictures
    assert all(len(told.split()) > 8 for told in page.pictures)


def test_full_page_leads_with_the_verdict(full: Path) -> None:
    page = Page(full / "report.html")
    assert page.text.index("The model overfits from epoch 6") < page.text.index("Loss over")
    assert "is missing" not in page.text
    assert len(page.pictures) == 2 * 7


def test_evaluation_sets_have_a_section(full: Path, bare: Path) -> None:
    [figure, _] = [text for text in Page(full / "report.html").pictures if "each set" in text]
    lowest = dict(re.findall(r"(validation|exam) (\d+\.\d+)", figure))
    assert float(lowest["exam"]) == pytest.approx(float(lowest["validation"]) + 0.5, abs=0.002)
    section = Page(full / "report.html").text.partition("exam")[2].partition("Rise of the")[0]
    assert section.count("overfits") >= 1
    assert lowest["exam"] in section
    assert "Evaluation sets" not in Page(bare / "report.html").text


def test_text_of_the_run_is_shown_as_it_is(full: Path) -> None:
    page = Page(full / "report.html")
    assert "<script>alert(1)</script>" in page.text
    assert "<b>raised</b>" in page.text
    assert "b" not in page.tags


def test_tokens_show_their_numbers(full: Path) -> None:
    text = (full / "report.html").read_text(encoding="utf-8")
    told = re.findall(r'title="(entropy [\d.]+ nats · loss [^"]*)"', text)
    assert len(told) == 2 * 59
    before, after, change = map(
        float, re.findall(r"-?[\d.]+", told[0].partition("loss")[2].replace("+", ""))
    )
    assert after - before == pytest.approx(change, abs=0.011)


@pytest.mark.parametrize(
    "told",
    [
        "There is no diagnosis",
        "set data.clean_train_blocks",
        "There is no gap",
        "There are no entropies",
        "No regularizer logged",
        "Forgetting was not measured: set data.forgetting to a general corpus",
        "Verbatim memorization was not measured",
        "There are no passages",
        "There are no samples",
        "There are no scores: set monitors.task",
        "Settings and hashes are missing",
    ],
)
def test_bare_page_says_what_is_missing(bare: Path, told: str) -> None:
    assert told in Page(bare / "report.html").text


def test_scores_on_the_task_are_shown_with_their_interval(full: Path) -> None:
    page = Page(full / "report.html")
    low, high = binomtest(8, 20).proportion_ci(method="wilson")
    assert f"40.0% at the end (95% interval {low:.1%} to {high:.1%}), 0.0% at the" in page.text
    # The lowest scores come first.
    assert page.text.index("output 8") < page.text.index("output 0")
    assert "<i>a</i>" in page.text


def test_no_folder_of_the_machine_is_told(bare: Path) -> None:
    assert str(bare.parent) not in (bare / "report.html").read_text()


def test_several_runs_are_put_side_by_side(several: Path) -> None:
    page = Page(several)
    assert "Two & a half" in page.text
    assert "Lowest: since training began, so never that of the untrained model." in page.text


def test_page_of_a_comparison_shows_all_findings(comparison: Path) -> None:
    page, found = Page(comparison), json.loads((comparison.parent / FILE_NAME).read_text())
    assert "Three <i>arms</i> & more" in page.text
    assert "i" not in page.tags
    plain, dropped = (found["arms"][name]["metrics"] for name in ("plain", "entrodrop"))
    assert {"last/loss_high_entropy", "last/gap", "best/forgetting", "drop_rate"} <= dropped.keys()
    for name, value in {**plain, **dropped}.items():
        assert formatting.title(name) in page.text
        told = [formatting.number(name, value["mean"]), *formatting.difference(name, value)]
        assert all(text.replace("-", "−") in page.text for text in told)
    score = dropped["best/task_choice"]
    assert (score["method"], score["samples"]) == (OVER_ITEMS, 4)
    asked = found["contrasts"][-1]
    assert (asked["arm"], asked["against"], asked["is_contrast"]) == ("entrodrop", "random", True)
    for name, value in asked["metrics"].items():
        assert all(t.replace("-", "−") in page.text for t in formatting.difference(name, value))
    assert "entrodrop − random" in page.text
    assert "95 of 100" not in page.text
    assert page.text.count("neither special nor padding") == 3  # of two runs, and a definition
    for told in ("a paired bootstrap over documents", "a permutation test, in which"):
        assert told in page.text
    assert all(note.replace("`", "") in page.text for note in found["notes"])


def test_figures_are_files_too(full: Path, comparison: Path) -> None:
    names = {"losses", "sets", "gaps", "entropies", "schedule", "forgetting", "task"}
    assert {path.stem for path in (full / "figures").glob("*.svg")} == names
    assert {path.stem for path in (full / "figures").glob("*.png")} == names
    assert matplotlib.image.imread(full / "figures" / "losses.png").shape[1] > 1500
    assert (comparison.parent / "figures" / "comparison.svg").exists()


def test_same_run_gives_the_same_page(full: Path, tmp_path: Path) -> None:
    again = write_report(tmp_path, {"full": full})
    assert again.read_bytes() == (full / "report.html").read_bytes()
    for figure in (tmp_path / "figures").glob("*.svg"):
        assert figure.read_bytes() == (full / "figures" / figure.name).read_bytes()


def test_command_reports_on_a_run_that_has_just_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "mine", epochs=0)
    main(["report", "--runs", str(run)])
    assert str(run / "report.html") in capsys.readouterr().out
    assert "two evaluations" in Page(run / "report.html").text


def test_command_needs_a_place_for_several_runs(
    full: Path, bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", "--runs", str(full), str(bare)])
    assert ended.value.code == 2
    assert "expected --output" in capsys.readouterr().err


def test_run_that_never_validated_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"step": [1], "epoch": [0], "train/loss": [3.0]}).to_csv(
        tmp_path / "metrics.csv", index=False
    )
    with pytest.raises(ValueError, match=r"expected val/loss .* let the run validate first"):
        write_report(tmp_path, {"new": tmp_path})


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one run"):
        write_report(tmp_path, {})
