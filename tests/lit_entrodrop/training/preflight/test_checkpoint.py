from typing import Any

import pytest

from lit_entrodrop.model.config import LMConfig, LoRAConfig, QuantizeConfig
from lit_entrodrop.training.preflight.model import check_same_function


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"lora": LoRAConfig(alpha=5)}, r"lora\.alpha: expected 32, .* got 5"),
        ({"lora": LoRAConfig(rslora=True)}, r"lora\.rslora: expected False, .* got True"),
        ({"quantize": QuantizeConfig("fp4")}, r"quantize: expected None, .* got Quant.*fp4"),
    ],
)
def test_settings_under_which_weights_mean_another_model_are_refused(
    settings: dict[str, Any], named: str
) -> None:
    saved = LMConfig("base", lora=LoRAConfig())
    check_same_function(saved, LMConfig("base", lora=LoRAConfig(dropout=0.5)))
    with pytest.raises(ValueError, match=rf"model\.lm\.{named}"):
        check_same_function(saved, LMConfig("base", **{"lora": LoRAConfig(), **settings}))
