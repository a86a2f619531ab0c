"""What the README shows must run."""

import re
from pathlib import Path

import pytest

from lit_entrodrop.cli.main import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, marker: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(block for block in blocks if marker in block)


def python_block(marker: str) -> str:
    return block("python", marker)


def test_own_regularizer_is_that_of_the_page_that_explains_it() -> None:
    page = (ROOT / "docs" / "write_your_own.md").read_text(encoding="utf-8")
    assert python_block("class LossVariance") in page


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


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(((?!http)[^)]+)\)", README))))
def test_links_lead_somewhere(path: str) -> None:
    name, _, anchor = path.partition("#")
    target = ROOT / name
    assert target.exists()
    if anchor:
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
        assert anchor in [heading.lower().replace(" ", "-") for heading in headings]


def test_it_is_short_and_starts_with_a_result() -> None:
    lines = README.splitlines()
    assert len(lines) < 200
    assert any(line.startswith("| EntroDrop |") for line in lines[:35])
