import pytest

from lit_entrodrop.data.settings import check_at_least, check_shares


def test_good_settings_pass() -> None:
    check_at_least(2, block_size=2, max_train_tokens=None)
    assert check_shares(0.1, 0.2) == (0.1, 0.2)
    assert check_shares("other.txt", 0) == (0.0, 0.0)


@pytest.mark.parametrize("value", [1, -3, 2.5, "8"])
def test_small_or_fractional_number_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match=r"block_size: expected .* at least 2, got .*Set it"):
        check_at_least(2, block_size=value)


@pytest.mark.parametrize("shares", [(-0.1, 0.0), (0.5, 0.5), (1.0, "a.txt"), (float("nan"), 0.0)])
def test_bad_shares_are_refused(shares: tuple[float | str, float | str]) -> None:
    with pytest.raises(ValueError, match=r"less than 1, got .*Use for example"):
        check_shares(*shares)
