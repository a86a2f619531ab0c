from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lit_entrodrop.cli.main import main
from lit_entrodrop.cli.parsing import load_regularizers
from lit_entrodrop.commands.regularizers.catalog import find_all
from regularizers.discovery import installed_regularizers
from tests.regularizers.test_discovery import SOUND, install


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which packages are installed, and which has not been looked into."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for function in (load_regularizers, installed_regularizers):
        function.cache_clear()
    yield tmp_path
    for function in (load_regularizers, installed_regularizers):
        function.cache_clear()


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, object]]:
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--data.corpus=x", "--print_config", *words])
    assert not ended.value.code
    regularizers: list[dict[str, object]] = yaml.safe_load(capsys.readouterr().out)["model"][
        "regularizers"
    ]
    return regularizers


def test_broken_package_is_reported_and_fit_continues(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(folder, "broken", "Broken = kit_broken:Broken", "kit_broken", "1 / 0")
    with pytest.warns(UserWarning, match="broken 2.1 announces Broken .*ZeroDivisionError"):
        [regularizer] = printed(capsys, "--model.regularizers+=EmbeddingDropout")
    assert regularizer["class_path"] == "regularizers.EmbeddingDropout"


def test_short_names_of_all_packages_become_class_paths(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(folder, "brief", "Brief = kit_brief:Brief", "kit_brief", SOUND.format(name="Brief"))
    (folder / "own.yaml").write_text(
        "model: {regularizers+: [{class_path: Brief}, {class_path: EntroDrop}]}"
    )
    words = [f"--config={folder / 'own.yaml'}", "--model.regularizers+=RandomTokenDropout"]
    assert [each["class_path"] for each in printed(capsys, *words)] == [
        "kit_brief.Brief",
        "regularizers.EntroDrop",
        "regularizers.RandomTokenDropout",
    ]


def test_ambiguous_name_is_refused_with_both_paths(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = SOUND.format(name="Twin")
    install(folder, "twin", "Twin = kit_twin:Twin", "kit_twin", f"import kit_twin2\n{source}")
    (folder / "kit_twin2.py").write_text(source)
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--data.corpus=x", "--model.regularizers+=Twin"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "Multiple subclasses with name Twin. Give the full class path" in told
    assert "kit_twin.Twin" in told
    assert "kit_twin2.Twin" in told


@pytest.mark.parametrize(
    "given", ["Entrodrop", "entro_drop", "regularizers.EntroDrp", "{class_path: Entrodrop}"]
)
def test_misspelled_name_gets_a_suggestion(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "own.yaml"
    config.write_text(f"model: {{regularizers+: [{given}]}}")
    for words in ([f"--config={config}"], [f"--model.regularizers+={given}"]):
        with pytest.raises(SystemExit):
            main(["fit", "--data.corpus=x", *words])
        assert ": did you mean EntroDrop? (see" in capsys.readouterr().err


def test_those_of_a_package_stand_together(folder: Path) -> None:
    for name, package in {"Abel": "even", "Bert": "odd", "Carl": "even"}.items():
        module = f"kit_{name.lower()}"
        announced = f"{name} = {module}:{name}"
        install(folder, f"{package}_{name}", announced, module, SOUND.format(name=name))
    found = [each for each in find_all().descriptions.values() if each.package != "lit-entrodrop"]
    assert [each.name for each in found] == ["Abel", "Carl", "Bert"]


@pytest.mark.parametrize("failing", ["1 / 0", "raise SystemExit(3)"])
def test_what_cannot_be_built_is_not_listed(folder: Path, failing: str) -> None:
    source = SOUND.format(name="Unbuilt") + f"    def __init__(self):\n        {failing}\n"
    install(folder, "unbuilt", "Unbuilt = kit_unbuilt:Unbuilt", "kit_unbuilt", source)
    catalog = find_all()
    assert "Unbuilt" not in catalog.descriptions
    [problem] = catalog.problems
    assert problem.startswith("unbuilt 2.1 announces Unbuilt: building it from its defaults raised")
