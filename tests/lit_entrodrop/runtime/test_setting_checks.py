import pytest

from lit_entrodrop.runtime.setting_checks import check_at_least


def test_good_settings_pass() -> None:
    check_at_least(2, block_size=2, max_train_tokens=None)


@pytest.mark.parametrize("value", [1, -3, 2.5, "8"])
def test_small_or_fractional_number_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match=r"block_size: expected .* at least 2, got .*Set it"):
        check_at_least(2, block_size=value)
