from pathlib import Path
from typing import Any

from lit_entrodrop.commands.diagnose.command import main
from tests.helpers.browsing import PHONE, opened

LOGS = Path(__file__).parent / "logs"


def test_a_page_shows_all_runs_and_fits_a_phone(tmp_path: Path, browser: Any) -> None:
    page = tmp_path / "page.html"
    main([str(LOGS / "hugging_face"), str(LOGS / "lightning"), "--output", str(page)])
    shown = opened(browser, page, PHONE)
    text = shown.find_element("tag name", "body").text
    assert text.startswith("The validation loss rises in 2 of 2 runs")
    assert text.count("The model overfits from epoch 2") >= 2
    assert text.count("stair steps: at the start of each epoch") == 2
    assert shown.execute_script("return document.documentElement.scrollWidth") == PHONE
