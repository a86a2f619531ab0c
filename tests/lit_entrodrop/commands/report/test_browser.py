"""The page in a real browser, at the widths of a phone and of a desk."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.browsing import DESK, PHONE, opened


@pytest.fixture(params=[PHONE, DESK])
def width(request: pytest.FixtureRequest) -> int:
    width: int = request.param
    return width


@pytest.mark.parametrize("name", ["full", "bare", "several", "comparison"])
def test_page_fits_its_screen(
    browser: Any, name: str, width: int, request: pytest.FixtureRequest
) -> None:
    found: Path = request.getfixturevalue(name)
    opened(browser, found if found.is_file() else found / "report.html", width)
    browser.execute_script("document.querySelectorAll('details').forEach(e => e.open = true)")
    beyond = "const root = document.documentElement; return root.scrollWidth - root.clientWidth"
    assert browser.execute_script(beyond) == 0


def test_one_drawing_of_each_figure_is_shown(browser: Any, full: Path, width: int) -> None:
    opened(browser, full / "report.html", width)
    shown = "return [...document.querySelectorAll('svg')].filter(e => e.checkVisibility()).length"
    figures = browser.execute_script("return document.querySelectorAll('figure').length")
    assert browser.execute_script(shown) == figures == 7
    heights = """
        return [...document.querySelectorAll('svg text')].filter(e => e.checkVisibility())
            .map(e => e.getBoundingClientRect().height)
    """
    assert min(browser.execute_script(heights)) > 9


def test_page_asks_for_nothing_and_complains_of_nothing(
    browser: Any, comparison: Path, width: int
) -> None:
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    opened(browser, comparison, width)
    assert browser.get_log("browser") == []
    sent = [entry["message"] for entry in browser.get_log("performance")]
    asked = [message for message in sent if "Network.requestWillBeSent" in message]
    assert asked
    assert all(comparison.name in each or '"url":"data:' in each for each in asked)


def test_values_of_a_comparison_can_be_read(browser: Any, comparison: Path, width: int) -> None:
    opened(browser, comparison, width)
    browser.execute_script("document.querySelectorAll('details').forEach(e => e.open = true)")
    # Neither a cell nor a table has to be scrolled.
    cells = """
        return [...document.querySelectorAll('.stack td, .scroll:has(> .stack)')]
            .filter(e => e.checkVisibility()).map(e => [e.scrollWidth, e.clientWidth])
    """
    sizes = browser.execute_script(cells)
    assert len(sizes) > 30
    assert all(needed <= given for needed, given in sizes)


def test_colors_change_without_a_script(browser: Any, full: Path, width: int) -> None:
    opened(browser, full / "report.html", width)
    colors = """
        return [...document.querySelectorAll('.t')].map(e => getComputedStyle(e).backgroundColor)
    """
    by_entropy = browser.execute_script(colors)
    browser.find_element("css selector", "label[for=by-change]").click()
    by_change = browser.execute_script(colors)
    assert len(set(by_entropy)) > 4
    assert len(set(by_change)) > 4
    assert by_entropy != by_change
    keys = "return [...document.querySelectorAll('.key')].map(e => e.checkVisibility())"
    assert browser.execute_script(keys) == [False, True]


def test_toggle_is_reached_by_keyboard(browser: Any, full: Path) -> None:
    opened(browser, full / "report.html", DESK)
    browser.find_element("id", "by-entropy").send_keys("\ue014")  # arrow right
    assert browser.find_element("id", "by-change").is_selected()
