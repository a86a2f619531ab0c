"""A page in a browser, at the widths of a phone and of a desk."""

import shutil
from pathlib import Path
from typing import Any

import pytest

PHONE, DESK = 390, 1280
# Nothing but the page: no updates, no accounts, no first-run tour.
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def program(*names: str) -> str:
    """Return where a program is, or skip naming it."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"{names[0]} is missing")
    return found


def opened(browser: Any, page: Path, width: int) -> Any:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    return browser
