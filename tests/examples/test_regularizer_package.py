"""The package template can be installed, found, trained with and tested."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from lit_entrodrop.cli.main import main
from lit_entrodrop.cli.parsing import load_regularizers
from lit_entrodrop.runs.metrics_file import read_metrics
from regularizers.discovery import installed_regularizers
from tests.helpers.processes import run_forked
from tests.helpers.tiny import Tiny, build_tokenizer, texts, write_corpus

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "examples" / "regularizer_package"
CLASS_PATH = "acme_regularizers.loss_truncation.LossTruncation"


@dataclass
class Installed:
    """A copy of the template, and the folder where pip installed it."""

    source: Path
    packages: Path

    def python(self, *arguments: str) -> str:
        """Run a new interpreter that finds the package, and return its output."""
        paths = os.pathsep.join([str(self.packages), str(ROOT)])
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            cwd=self.source,
            env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "80", "CUDA_VISIBLE_DEVICES": ""},
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def commands(self, folder: Path, *commands: list[str]) -> list[str]:
        """Run commands of the program, and return the output of each, kept in a folder."""
        files = [folder / f"output{number}.txt" for number in range(len(commands))]
        done = run_forked(run_commands, self.packages, files, commands, cwd=self.source)
        assert done.returncode == 0, done.stdout
        return [file.read_text() for file in files]


def run_commands(packages: Path, outputs: list[Path], commands: list[list[str]]) -> None:
    """Run commands as an interpreter would that finds the package, and has looked for none."""
    sys.path.insert(0, str(packages))
    for function in (load_regularizers, installed_regularizers):
        function.cache_clear()
    os.environ["COLUMNS"] = "80"
    for words, output in zip(commands, outputs, strict=True):
        with output.open("w") as file, redirect_stdout(file):
            main(words)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("acme")
    source, packages = folder / "source", folder / "packages"
    shutil.copytree(TEMPLATE, source, ignore=shutil.ignore_patterns("__pycache__"))
    # Without hatchling, which the extra `test` brings, pip has to fetch it.
    fetches = find_spec("hatchling") is None
    command = ["install", "--quiet", "--no-deps", "--target", str(packages), str(source)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *command, *([] if fetches else ["--no-build-isolation"])],
        capture_output=True,
        text=True,
    )
    if done.returncode and fetches and "No matching distribution found" in done.stderr:
        pytest.skip("pip cannot reach hatchling, which builds the package")
    assert done.returncode == 0, done.stderr
    return Installed(source, packages)


def test_package_is_found_explained_and_trained_with(installed: Installed, tmp_path: Path) -> None:
    tokenizer = build_tokenizer(tmp_path / "tokenizer")
    tiny = Tiny(tmp_path, tokenizer, write_corpus(tmp_path / "corpus.jsonl", texts(60)))
    fit = ["fit", *tiny.config(), "--trainer.max_steps=2", "--trainer.log_every_n_steps=1"]
    runs = [tmp_path / name for name in ("short", "full", "flag")]
    by_path = tmp_path / "full.yaml"
    by_path.write_text(f"model: {{regularizers+: [{{class_path: {CLASS_PATH}}}]}}")
    asked = [
        f"--config={TEMPLATE / 'loss_truncation.yaml'}",
        f"--config={by_path}",
        "--model.regularizers+=LossTruncation",
    ]
    [shown] = re.findall(r"lit-entrodrop (fit (?:.*\\\n)*.*)", (TEMPLATE / "README.md").read_text())
    quick = "--data.max_train_tokens=2000 --data.validation=0.002 --trainer.max_steps=1"
    listing, told, explained, *_ = installed.commands(
        tmp_path,
        ["regularizers"],
        ["regularizers", "--json"],
        ["regularizers", "--explain", "LossTruncation"],
        *(
            [*fit, f"--trainer.default_root_dir={run}", words]
            for run, words in zip(runs, asked, strict=True)
        ),
        [*shlex.split(shown.replace("\\\n", "")), *quick.split()],
    )
    assert "acme-regularizers 1.0.0" in listing
    assert "Exclude the tokens of highest loss." in listing
    described = json.loads(told)["regularizers"][-1]
    assert (described["package"], described["version"]) == ("acme-regularizers", "1.0.0")
    assert described["class_path"] == CLASS_PATH
    assert described["acts_on"] == ["token loss"]
    assert described["block"] in explained
    assert "k = ⌊(1 − share) · n⌋" in explained
    losses = []
    for run in runs:
        [kept] = yaml.safe_load((run / "config.yaml").read_text())["model"]["regularizers"]
        assert kept == {"class_path": CLASS_PATH, "init_args": {"curriculum": 0.1}}
        metrics = read_metrics(run)
        assert metrics["loss_truncation/strength"].dropna().to_list() == pytest.approx([0.1] * 2)
        losses.append(metrics["train/loss"].dropna().to_list())
    assert losses[0] == losses[1] == losses[2]
    as_shown = read_metrics(installed.source / "runs" / "default")
    assert as_shown["loss_truncation/strength"].dropna().to_list() == [0.1]


def test_tests_of_the_package_pass(installed: Installed) -> None:
    printed = installed.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert " passed" in printed
    assert "failed" not in printed
