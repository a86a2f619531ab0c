"""The page in a real browser, at the widths of a phone and of a desk."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.browsing import DESK, PHONE, opened


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_page_fits_its_screen_and_its_colors_change(browser: Any, page: Path, width: int) -> None:
    browser.get_log("browser")
    opened(browser, page, width)
    beyond = "const root = document.documentElement; return root.scrollWidth - root.clientWidth"
    assert browser.execute_script(beyond) == 0
    colors = "return [...document.querySelectorAll('.t')].map(e => getComputedStyle(e).background)"
    by_use = browser.execute_script(colors)
    browser.find_element("css selector", "label[for=by-entropy]").click()
    by_entropy = browser.execute_script(colors)
    assert len(set(by_use)) > 2
    assert len(set(by_entropy)) > 4
    assert browser.get_log("browser") == []
