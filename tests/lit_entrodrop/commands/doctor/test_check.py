import pytest

from lit_entrodrop.commands.doctor.check import CheckResult, run_check, warned


def test_check_is_named_after_its_function() -> None:
    def well_known(_: None) -> CheckResult:
        return warned("seen", "look again")

    assert run_check(well_known, None) == CheckResult("warn", "seen", "look again", "well known")


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (ValueError("data.x: expected 1,\n got 2: set it"), "data.x: expected 1, got 2: set it"),
        (RuntimeError("shape mismatch"), "RuntimeError: shape mismatch"),
        (NotImplementedError(), "NotImplementedError"),
    ],
)
def test_error_is_a_failure_with_its_message(error: Exception, found: str) -> None:
    def check(_: None) -> CheckResult:
        raise error

    result = run_check(check, None)
    assert (result.status, result.found, result.name) == ("fail", found, "check")


def test_interruption_is_no_failure() -> None:
    def check(_: None) -> CheckResult:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_check(check, None)
