"""Model card: base model, training, evaluation and limitations."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import AutoConfig

from lit_entrodrop.cli.yaml_text import load_yaml
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.runs.checkpoints.averages import AVERAGE
from lit_entrodrop.runs.criterion import Criterion
from lit_entrodrop.runs.layout import CONFIG
from lit_entrodrop.runs.metrics_file import FILE_NAME, read_metrics
from lit_entrodrop.training.provenance import hub_name, public_name, settings_of

LOSS = "val/loss"
LIMITATIONS = (
    "This card was written from the files of the run. The origin of the corpus and the licenses of "
    "corpus and base model are unknown. The model was evaluated only on predicting held-out text, "
    "not on safety, bias or factual accuracy."
)


def write_card(
    folder: Path,
    name: str,
    paths: Sequence[Path],
    checkpoint: dict[str, Any],
    lm: LMConfig,
    adapters: bool = False,
    gguf_file: str | None = None,
) -> None:
    """Write ``README.md``, of a whole model, of LoRA adapters only, or of a GGUF file.

    If the checkpoint is still in the folder of its run, the card has the losses and the config of
    the run. The mean of several checkpoints has the settings of the first, and no known loss.
    """
    ckpt_path, *others = paths
    run = ckpt_path.absolute().parent.parent
    facts = checkpoint.get("provenance", {})
    losses = {} if others else dict(_losses(run, checkpoint, facts))
    use = _use(name, lm, adapters, checkpoint["hf_config"])
    if gguf_file is not None:
        use = _use_gguf(name, gguf_file, adapters)
    body = "\n\n".join(
        [
            f"# {name}",
            _summary(lm, facts, adapters),
            *_section("Use", use),
            *_section("Evaluation", _evaluation(losses, ckpt_path)),
            *_section("Training", _training(checkpoint, lm, facts, paths)),
            *_section("Regularizers", _regularizers(facts)),
            *_section("Config of the run", _config(run / CONFIG)),
            *_section("Limitations", LIMITATIONS),
        ]
    )
    head = _metadata(name, lm, losses, adapters)
    if gguf_file is not None:
        head.tags = [*(head.tags or []), "gguf"]
    ModelCard(f"---\n{head.to_yaml()}\n---\n\n{body}\n").save(folder / "README.md")


def _metadata(
    name: str, lm: LMConfig, losses: dict[str, tuple[int, float]], adapters: bool
) -> ModelCardData:
    values = {}
    if "this checkpoint" in losses:
        _, loss = losses["this checkpoint"]
        values = {"loss": loss, "perplexity": math.exp(loss)}
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="private",
            dataset_name="validation split of the run",
            metric_type=metric,
            metric_value=round(value, 4),
        )
        for metric, value in values.items()
    ]
    return ModelCardData(
        base_model=hub_name(lm.pretrained),
        library_name="peft" if adapters else "transformers",
        license="unknown",
        model_name=name,
        pipeline_tag="text-generation",
        tags=["lit-entrodrop", *(["lora"] if lm.lora else [])],
        eval_results=results or None,
    )


def _section(title: str, text: str | None) -> list[str]:
    return [f"## {title}", text] if text else []


def _summary(lm: LMConfig, facts: dict[str, Any], adapters: bool) -> str:
    names = [str(each["class_path"]).rpartition(".")[2] for each in facts.get("regularizers", [])]
    start = f"`{public_name(lm.pretrained)}`" if lm.pretrained else "random weights"
    what = "LoRA adapters trained on" if adapters else "A causal LM trained from"
    how = f"under {', '.join(names)}" if names else "without a regularizer"
    with_which = f" {how}" if "regularizers" in facts else ""
    return f"{what} {start}{with_which}, by lit-entrodrop."


def _use(name: str, lm: LMConfig, adapters: bool, hf_config: dict[str, Any]) -> str:
    imports = ["AutoModelForCausalLM", "AutoTokenizer", *(["GenerationConfig"] if adapters else [])]
    lines = [f"from transformers import {', '.join(imports)}", ""]
    if adapters:
        base = public_name(lm.pretrained) if lm.pretrained else "the base model"
        lines[:0] = ["from peft import PeftModel"]
        lines += [f'base = AutoModelForCausalLM.from_pretrained("{base}", dtype="auto")']
        if lm.add_tokens:
            rows = AutoConfig.for_model(**hf_config).get_text_config().vocab_size
            lines += [f"base.resize_token_embeddings({rows})"]
        lines += [f'model = PeftModel.from_pretrained(base, "{name}")']
        lines += [f'model.generation_config = GenerationConfig.from_pretrained("{name}")']
    else:
        lines += [f'model = AutoModelForCausalLM.from_pretrained("{name}", dtype="auto")']
    lines += [
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
        'inputs = tokenizer("The", return_tensors="pt")',
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))",
    ]
    return _fenced("python", "\n".join(lines))


def _use_gguf(name: str, file: str, adapters: bool) -> str:
    if adapters:
        return _fenced("bash", f"llama-cli -m base.gguf --lora {file}  # of llama.cpp")
    commands = [
        f"llama-cli -m {file}  # of llama.cpp",
        f"ollama create {name} -f Modelfile && ollama run {name}",
    ]
    code = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("{name}", gguf_file="{file}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{name}", gguf_file="{file}")',
    ]
    return "\n\n".join([_fenced("bash", "\n".join(commands)), _fenced("python", "\n".join(code))])


def _losses(
    run: Path, checkpoint: dict[str, Any], facts: dict[str, Any]
) -> Iterator[tuple[str, tuple[int, float]]]:
    """Yield a name, with the optimizer step and the validation loss there."""
    names = Criterion(LOSS, averaged=True).metrics
    own = names[-1] if checkpoint.get("weights") == "averaged" else LOSS
    if own in facts.get("metrics", {}):
        yield "this checkpoint", (checkpoint["global_step"], facts["metrics"][own])
    if (run / FILE_NAME).is_file():
        losses = read_metrics(run).reindex(columns=names)
        # The averaged weights are among those from which the best are chosen.
        if len(curve := losses.min(axis="columns").dropna()):
            yield "best of the run", (int(curve.idxmin()), float(curve.min()))
            last = losses[LOSS].dropna()
            yield "last of the run", (int(last.index[-1]), float(last.iloc[-1]))


def _evaluation(losses: dict[str, tuple[int, float]], ckpt_path: Path) -> str:
    if not losses:
        return "The checkpoint contains no validation loss."
    rows = [
        (name, f"{step:,}", f"{loss:.4f}", f"{math.exp(loss):.2f}")
        for name, (step, loss) in losses.items()
    ]
    table = _table(("", "step", "loss (nats per token)", "perplexity"), rows)
    return (
        f"{table}\n\nOn the validation split of the run, without regularizers, at the last "
        "evaluation before the checkpoint was written. If the checkpoint was selected by this "
        "loss, expect a higher loss on new text."
    )


def _training(
    checkpoint: dict[str, Any], lm: LMConfig, facts: dict[str, Any], paths: Sequence[Path]
) -> str:
    trainer, data = facts.get("trainer", {}), facts.get("data", {})
    what = "all weights"
    if lm.lora is not None:
        what = lm.lora.description
    if lm.quantize is not None:
        what += f", around a base model in 4 bits ({lm.quantize.quant_type})"
    steps = f"{checkpoint.get('global_step', 0):,} optimizer steps"
    rows = {
        "trained": what,
        "weights": _weights(checkpoint, paths),
        "starting point": public_name(lm.pretrained) if lm.pretrained else "random weights",
        "length": f"{steps}, in epoch {checkpoint.get('epoch', 0) + 1} of the run",
        "corpus": ", ".join(data.get("corpus", [])),
        "training blocks, hash": f"`{checkpoint.get('trained_on', 'unknown')}`",
        "blocks": _settings({n: v for n, v in data.items() if n not in ("corpus", "splits")}),
        "optimizer": _one_line(facts.get("optimizer")),
        "learning rate": _one_line(facts.get("lr_schedule")),
        "trainer": _settings(trainer),
        "seed": str(facts.get("seed", "")),
        "software": ", ".join(f"{n} {v}" for n, v in facts.get("versions", {}).items()),
    }
    table = _table(("", ""), ((name, text) for name, text in rows.items() if text))
    splits = data.get("splits")
    return f"{table}\n\n{_fenced('', splits)}" if splits else table


def _weights(checkpoint: dict[str, Any], paths: Sequence[Path]) -> str:
    if len(paths) > 1:
        return f"mean of {len(paths)} checkpoints: {', '.join(path.name for path in paths)}"
    if checkpoint.get("weights") != "averaged":
        return ""
    return f"average over training steps, {checkpoint[AVERAGE]['kind']}"


def _regularizers(facts: dict[str, Any]) -> str | None:
    if "regularizers" not in facts:
        return None
    if not facts["regularizers"]:
        return "None: plain fine-tuning."
    return f"Applied in this order:\n\n{_yaml(facts['regularizers'])}"


def _config(file: Path) -> str | None:
    if not file.is_file():
        return None
    text = _yaml(settings_of(load_yaml(file.read_text())))
    return f"Paths are shown without their folders.\n\n<details>\n\n{text}\n\n</details>"


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def _one_line(thing: dict[str, Any] | None) -> str:
    if not thing:
        return ""
    kind = str(thing["class_path"]).rpartition(".")[2]
    return f"{kind}: {_settings(thing['init_args'])}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text.strip()}\n```"


def _yaml(value: object) -> str:
    return _fenced("yaml", yaml.safe_dump(value, sort_keys=False, width=88))
