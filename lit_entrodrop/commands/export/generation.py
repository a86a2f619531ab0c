"""Generation config of an exported model."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from transformers import GenerationConfig

from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.loading import locate


def generation_config(lm: LMConfig, model: Any, stop: Sequence[int]) -> GenerationConfig:
    """Return the generation config of the base model, if it has one, with more stop tokens."""
    config: GenerationConfig = model.generation_config
    if lm.pretrained is not None:
        with suppress(OSError, ValueError):
            config = GenerationConfig.from_pretrained(locate(lm.pretrained).name)
    of_base = config.eos_token_id
    known = of_base if isinstance(of_base, list) else [of_base]
    stops = [token for token in dict.fromkeys([*known, *stop]) if token is not None]
    config.eos_token_id = stops if len(stops) > 1 else stops[0]
    return config
