"""The packages that a release publishes: their contents, and a run far from the checkout."""

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.metadata import Metadata

from tests.helpers.tiny import texts, write_corpus
from tests.test_readme import block, python_block

pytest.importorskip("hatch_vcs", reason="pip install 'lit-entrodrop[test]'")
build = pytest.importorskip("hatchling.build")

ROOT = Path(__file__).parents[1]
# One interpreter for all, because importing PyTorch and Lightning takes seconds.
COMMANDS = """
import json, sys
import lit_entrodrop
from lit_entrodrop.cli.main import main
print(lit_entrodrop.__file__)
sys.modules.update(dict.fromkeys(["tensorboard", "datasets", "pyarrow"]))
for words in json.loads(sys.argv[1]):
    main(words)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution and the wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return folder / build.build_sdist(str(folder)), folder / build.build_wheel(str(folder))


@pytest.fixture(scope="module")
def metadata(built: tuple[Path, Path]) -> Metadata:
    """Metadata of the wheel, validated as an index does."""
    with ZipFile(built[1]) as wheel:
        [name] = [each for each in wheel.namelist() if each.endswith(".dist-info/METADATA")]
        return Metadata.from_email(wheel.read(name))


def files_of(folder: str, inside: str) -> set[str]:
    return {
        f"{inside}/{path.relative_to(ROOT / folder)}"
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_has_both_packages_and_the_configs_alone(built: tuple[Path, Path]) -> None:
    with ZipFile(built[1]) as wheel:
        names = {each for each in wheel.namelist() if ".dist-info/" not in each}
    packages = [files_of(name, name) for name in ("lit_entrodrop", "regularizers")]
    assert names == set().union(*packages, files_of("configs", "lit_entrodrop/configs"))
    assert {"lit_entrodrop/py.typed", "regularizers/py.typed"} <= names


def test_source_distribution_builds_the_same_wheel(
    built: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, wheel = built
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path / source.name.removesuffix(".tar.gz"))
    assert {"tests", "docs", "examples", "Makefile"} <= set(os.listdir())
    again = tmp_path / build.build_wheel(str(tmp_path))
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_metadata_has_every_extra_that_a_message_names(metadata: Metadata) -> None:
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description == (ROOT / "README.md").read_text("utf-8")
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    configs = (ROOT / "configs").rglob("*.yaml")
    for path in [*pages, *configs, *(ROOT / "lit_entrodrop").rglob("*.py")]:
        for named in re.findall(r"lit-entrodrop\[([\w,-]+)\]", path.read_text("utf-8")):
            assert set(named.split(",")) <= set(metadata.provides_extra or ()), path


def test_installed_wheel_runs_the_readme_in_a_folder_of_its_own(
    built: tuple[Path, Path], metadata: Metadata, tmp_path: Path
) -> None:
    packages, folder = tmp_path / "packages", tmp_path / "mine"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target"]
    subprocess.run([sys.executable, "-m", "pip", *install, packages, built[1]], check=True)
    folder.mkdir()
    write_corpus(folder / "notes.jsonl", texts(60))
    (folder / "my_regularizers.py").write_text(python_block("class LossVariance"))
    (folder / "own.yaml").write_text(block("yaml", "my_regularizers.LossVariance"))
    names = ("configs/base.yaml", "configs/model/tiny_base.yaml", "own.yaml")
    configs = [f"--config={name}" for name in names]
    quick = ["--trainer.max_steps=1", "--data.block_size=32", "--trainer.accelerator=cpu"]
    run = ["--data.corpus=notes.jsonl", "--trainer.default_root_dir=runs/mine"]
    ended = ["--ckpt_path=runs/mine/checkpoints/last.ckpt", "--output=my_model"]
    shown = [["configs", "model/tiny_base.yaml"], ["regularizers", "--explain=EntroDrop"]]
    commands = [["--version"], *shown, ["fit", *configs, *run, *quick], ["export", *ended]]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(packages), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    source, version, *_ = done.stdout.splitlines()
    assert Path(source).is_relative_to(packages)
    assert version == f"lit-entrodrop {metadata.version}"
    assert (packages / "bin" / "lit-entrodrop").exists()
    assert "my_regularizers.LossVariance" in (folder / "runs/mine/config.yaml").read_text()
    assert json.loads((folder / "my_model" / "config.json").read_text())["model_type"] == "llama"
