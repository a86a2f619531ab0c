from typing import Any, Literal

import numpy as np
import pytest

from lit_entrodrop.runtime.setting_types import check_types, is_of


class Settings:
    def __init__(
        self,
        corpus: str | list[str | dict[str, str | float]],
        share: float = 0.1,
        mode: Literal["min", "max"] = "min",
        columns: dict[str, str] | None = None,
    ) -> None: ...


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (1, float, True),
        (np.float32(0.1), float, True),
        (np.int64(3), int, True),
        (3.0, int, False),
        (True, float, False),
        (1, bool, False),
        ("a", list[str], False),
        (("a", "b"), list[str], True),
        ([b"a"], list[str], False),
        (None, str | None, True),
        ({"a": 1}, dict[str, str], False),
        (object(), Any, True),
    ],
)
def test_values_fit_hints(value: object, hint: Any, fits: bool) -> None:
    assert is_of(value, hint) == fits


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": "0.1"}, r"^data.share: expected a number, got '0.1': correct it$"),
        ({"mode": "best"}, "^data.mode: expected min or max, got 'best'"),
        ({"columns": ["a"]}, r"^data.columns: expected a mapping of text or None, got \['a'\]"),
        ({"corpus": None}, "^data.corpus: expected text or a list of text or a mapping of text"),
    ],
)
def test_other_types_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_types("data", Settings.__init__, settings)
    check_types("data", Settings.__init__, {"corpus": ["a", {"source": "b", "weight": 2}]})
