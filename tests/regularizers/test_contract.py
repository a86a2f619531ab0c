"""Every regularizer of the package, found by walking its modules, keeps the contract."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable

import pytest
import torch

import regularizers
from regularizers import EntroDrop, Regularizer
from tests.regularizers.contract import (
    CHECKS,
    Case,
    assert_stays_on_cuda_without_waiting,
    cases_of,
)


def discover() -> list[type[Regularizer]]:
    """Return the classes that users can name: all but those that only serve as a base."""
    classes = set()
    for module_info in pkgutil.walk_packages(regularizers.__path__, "regularizers."):
        module = importlib.import_module(module_info.name)
        for _, member in inspect.getmembers(module, inspect.isclass):
            if issubclass(member, Regularizer) and member.__module__.startswith("regularizers."):
                classes.add(member)
    return sorted(
        (kind for kind in classes if not is_base(kind, classes)), key=lambda kind: kind.__name__
    )


def is_base(kind: type, classes: set[type[Regularizer]]) -> bool:
    """Tell whether others derive from a class that cannot be built from its defaults."""
    parameters = inspect.signature(kind).parameters
    incomplete = kind is Regularizer or any(
        each.default is each.empty for each in parameters.values()
    )
    return incomplete and any(issubclass(other, kind) for other in classes - {kind})


CASES = [case for kind in discover() for case in cases_of(kind)]


def test_discovery_finds_the_package() -> None:
    found = discover()
    assert EntroDrop in found
    public = {getattr(regularizers, name) for name in regularizers.__all__}
    assert {
        kind for kind in public if isinstance(kind, type) and issubclass(kind, Regularizer)
    } == {
        *found,
        Regularizer,
    }


def test_every_choice_makes_a_case() -> None:
    settings = [case.settings for case in CASES if case.kind is EntroDrop]
    assert {} in settings
    assert {"target": "both"} in settings
    assert {"replacement": "mean_embedding"} in settings
    assert {"scope": "corpus"} in settings


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[Case], None], case: Case) -> None:
    check(case)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_device_is_kept_without_waiting_for_it(case: Case) -> None:
    assert_stays_on_cuda_without_waiting(case)
