"""Values of the configuration of a Hugging Face model: overrides and ranges."""

import math
import re
from collections.abc import Iterable
from typing import Any

from transformers import PretrainedConfig
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

# Entries of a configuration by name, lower bound and upper bound, which is excluded. Outside,
# Transformers would build a useless model, or one whose first step fails.
ENTRY_RANGES = (
    (r".*drop.*", 0.0, 1.0),
    (r"(num|n)_(hidden_)?layers?", 1, math.inf),
    (r"(num|n)_(attention_|key_value_)?heads?", 1, math.inf),
    (r"(hidden|intermediate|vocab)_size|n_embd|n_positions|head_dim", 1, math.inf),
    (r"max_position_embeddings", 2, math.inf),
    (r"rope_theta|.*_eps(ilon)?", 1e-30, math.inf),
    (r"initializer_range", 0.0, math.inf),
)


def override_config(
    config: PretrainedConfig, overrides: dict[str, Any], setting: str = "lm.config_overrides"
) -> PretrainedConfig:
    """Change entries of a configuration in place.

    Args:
        config: Configuration of a model.
        overrides: New values, by entry.
        setting: Name of the setting, for error messages.

    Raises:
        ValueError: If an entry is unknown, or its value is of the wrong type or out of range.
    """
    require_known(setting, config, overrides)
    for entry, value in overrides.items():
        default = getattr(config, entry)
        try:
            setattr(config, entry, value)
            # Some configurations accept null for a number, and fail at the first step.
            is_missing = value is None and isinstance(default, float)
            valid = _is_in_range(entry, value) and not is_missing
        except Exception:  # each configuration has checks of its own
            valid = False
        if not valid:
            raise ValueError(
                f"{setting}.{entry}: expected a value of the type and range of {default!r}, the "
                f"value of {config.model_type}, got {value!r}: correct it"
            )
    return config


def _is_in_range(entry: str, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    return math.isfinite(value) and all(low <= value < high for low, high in _bounds(entry))


def _bounds(entry: str) -> list[tuple[float, float]]:
    return [(low, high) for name, low, high in ENTRY_RANGES if re.fullmatch(name, entry)]


def require_known(name: str, config: PretrainedConfig, entries: Iterable[str]) -> None:
    """Raise a ValueError if a configuration lacks some of the given entries."""
    unknown = sorted(entry for entry in entries if not hasattr(config, entry))
    if unknown:
        raise ValueError(
            f"{name}: {config.model_type} has no {', '.join(unknown)}; expected some of "
            f"{', '.join(sorted(config.to_dict()))}"
        )


def require_usable(config: PretrainedConfig) -> None:
    """Refuse a configuration that makes a useless or broken model.

    Raises:
        ValueError: If a value is out of range, or the heads do not form equal groups.
    """
    entries = config.to_dict()
    bad = [f"{name} {value}" for name, value in entries.items() if not _is_in_range(name, value)]
    heads, groups = entries.get("num_attention_heads"), entries.get("num_key_value_heads")
    if not bad and isinstance(heads, int) and isinstance(groups, int) and heads % groups:
        bad = [f"{heads} attention heads for {groups} key-value heads"]
    if bad:
        raise ValueError(
            f"lm: expected a configuration of {config.model_type} that can be trained, got "
            f"{', '.join(bad)}: correct config.json, or set lm.config_overrides"
        )


def require_known_quantization(config: PretrainedConfig) -> None:
    """Raise a ValueError if weights are quantized by a method that Transformers would ignore."""
    quantization = getattr(config, "quantization_config", None)
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    if method is not None and method not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        raise ValueError(f"its weights are quantized by {method}, which Transformers does not know")
