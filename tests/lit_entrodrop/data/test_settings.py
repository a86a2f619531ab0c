import pytest

from lit_entrodrop.data.settings import check_at_least, shares_of


def test_good_settings_pass() -> None:
    check_at_least(2, block_size=2, max_train_tokens=None)
    assert shares_of({"validation": 0.1, "test": 0.2}) == {"validation": 0.1, "test": 0.2}
    assert shares_of({"validation": "other.txt", "test": 0}) == {"validation": 0, "test": 0}


@pytest.mark.parametrize("value", [1, -3, 2.5, "8"])
def test_small_or_fractional_number_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match=r"block_size: expected .* at least 2, got .*Set it"):
        check_at_least(2, block_size=value)


@pytest.mark.parametrize("shares", [(-0.1, 0.0), (0.5, 0.5), (1.0, "a.txt"), (float("nan"), 0.0)])
def test_bad_shares_are_refused(shares: tuple[float | str, float | str]) -> None:
    with pytest.raises(ValueError, match=r"less than 1, got .*Use for example"):
        shares_of(dict(zip(("validation", "test"), shares, strict=True)))


def test_holdout_counts_among_the_shares() -> None:
    with pytest.raises(ValueError, match=r"less than 1, got validation 0.5, test 0.2, holdout 0.3"):
        shares_of({"validation": 0.5, "test": 0.2, "holdout": 0.3})
