from pathlib import Path

import pytest
import torch

from lit_entrodrop.entropy.score_cache import cached_store_path, weights_fingerprint
from lit_entrodrop.model.building import build_causal_lm
from tests.helpers.tiny import Tiny
from tests.lit_entrodrop.entropy.conftest import NOISY, build


def test_fingerprint_follows_weights_and_names(tiny: Tiny) -> None:
    assert weights_fingerprint(build(tiny)) == weights_fingerprint(build(tiny))
    assert weights_fingerprint(build(tiny)) != weights_fingerprint(build(tiny, seed=1))
    assert weights_fingerprint(build(tiny).bfloat16()) != weights_fingerprint(build(tiny))
    scalar, empty = torch.nn.Module(), torch.nn.Module()
    scalar.register_buffer("x", torch.tensor(1.0))
    assert weights_fingerprint(scalar) != weights_fingerprint(empty)


def test_cache_distinguishes_models_of_equal_weights(tiny: Tiny) -> None:
    torch.manual_seed(0)
    other = build_causal_lm(
        tiny.lm(
            architecture={**NOISY, "rope_parameters": {"rope_type": "default", "rope_theta": 5.0}}
        )
    )
    model = build(tiny)
    assert weights_fingerprint(other) == weights_fingerprint(model)
    assert cached_store_path(".", other, "a" * 32) != cached_store_path(".", model, "a" * 32)
    assert cached_store_path(".", model, "b" * 32) != cached_store_path(".", model, "a" * 32)
    assert cached_store_path(".", build(tiny), "a" * 32) == cached_store_path(".", model, "a" * 32)


def test_cache_distinguishes_precisions(tiny: Tiny) -> None:
    model = build(tiny)
    names = {cached_store_path(".", model, "a" * 32)}
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            names.add(cached_store_path(".", model, "a" * 32))
    names.add(cached_store_path(".", model.double(), "a" * 32))
    assert len(names) == 4


def test_cache_folder_may_be_in_the_home(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in cached_store_path("~/cache", build(tiny), "a" * 32).parents
