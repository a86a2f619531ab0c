"""What the README shows must run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_entrodrop.cli.main import main

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def block(language: str, marker: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(block for block in blocks if marker in block)


def python_block(marker: str) -> str:
    return block("python", marker)


def test_own_regularizer_is_about_twenty_lines_and_works() -> None:
    from regularizers import Outputs, Regularizers, TrainingStep, Vocabulary

    source = python_block("class LossVariance")
    code = [line for line in source.splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) <= 22
    namespace: dict[str, type] = {}
    exec(compile(source, "my_regularizers.py", "exec", dont_inherit=True), namespace)

    ids = torch.tensor([[1, 2, 3]])
    documents = torch.zeros_like(ids)
    logits = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0))
    step = TrainingStep(ids, ids, documents, Vocabulary(5))
    outputs = Outputs.from_logits(logits, ids, documents)
    plain = Regularizers([]).mean_loss(outputs, step)
    regularized = Regularizers([namespace["LossVariance"](0.1)]).mean_loss(outputs, step)
    losses = -logits.double().log_softmax(-1)[0, [0, 1], [2, 3]]
    expected = 0.1 * losses.var(correction=0)
    assert (regularized - plain).item() == pytest.approx(expected.item(), rel=1e-5)


def test_own_regularizer_is_found_in_the_folder_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "my_regularizers.py").write_text(python_block("class LossVariance"))
    (tmp_path / "own.yaml").write_text(block("yaml", "my_regularizers.LossVariance"))
    script = Path(sys.executable).with_name("lit-entrodrop")
    command = [script, "fit", "--config", "own.yaml", "--data.corpus=x", "--print_config"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "my_regularizers.LossVariance" in done.stdout


def test_config_of_a_run_with_an_own_regularizer_can_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_regularizers.py").write_text(python_block("class LossVariance"))
    monkeypatch.syspath_prepend(str(tmp_path))
    own, kept = tmp_path / "own.yaml", tmp_path / "kept.yaml"
    own.write_text(block("yaml", "my_regularizers.LossVariance"))

    def printed(*configs: Path) -> str:
        flags = [word for config in configs for word in ("--config", str(config))]
        with pytest.raises(SystemExit):
            main(["fit", *flags, "--data.corpus=x", "--print_config"])
        return capsys.readouterr().out

    kept.write_text(printed(own))
    assert "value: 0.1" in kept.read_text() or "curriculum: 0.1" in kept.read_text()
    assert printed(kept) == kept.read_text()


def test_bare_loop_snippet_runs() -> None:
    from functools import partial

    from transformers import LlamaConfig, LlamaForCausalLM

    import regularizers as package

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    ids = torch.arange(10)[None]
    namespace = {name: getattr(package, name) for name in package.__all__} | {
        "partial": partial,
        "model": LlamaForCausalLM(config).train(),
        "input_ids": ids,
        "labels": ids,
        "document_ids": torch.zeros_like(ids),
        "vocabulary": package.Vocabulary(11),
        "entropy": torch.rand(1, 10),
        "i": 9,
        "total": 10,
    }
    exec(python_block("perturbed_embeddings(model"), namespace)
    assert namespace["step"].metrics["entro_drop/drop_rate"] >= 0
    gradients = [p.grad for p in namespace["model"].parameters()]
    assert all(gradient is not None for gradient in gradients)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(((?!http)[^)]+)\)", README))))
def test_links_lead_somewhere(path: str) -> None:
    name, _, anchor = path.partition("#")
    target = Path(__file__).parent.parent / name
    assert target.exists()
    if anchor:
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
        assert anchor in [heading.lower().replace(" ", "-") for heading in headings]


def test_quickstart_stands_near_the_top() -> None:
    lines = README.splitlines()
    assert any("make quickstart" in line for line in lines[:35])
