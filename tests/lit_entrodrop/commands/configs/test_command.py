"""Bundled configs can be listed and copied where there is no checkout."""

import pytest

from lit_entrodrop.cli.main import main
from tests.helpers.tiny import CONFIGS


def test_list_has_every_config_with_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    main(["configs"])
    lines = capsys.readouterr().out.splitlines()
    names = [f"configs/{each.relative_to(CONFIGS)}" for each in CONFIGS.rglob("*.yaml")]
    assert sorted(names) == sorted(line.split()[0] for line in lines)
    [base] = [line for line in lines if line.startswith("configs/base.yaml")]
    assert "Settings shared by all runs." in base


@pytest.mark.parametrize("name", ["model", "configs/model/"])
def test_folder_lists_its_configs_alone(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["configs", name])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list((CONFIGS / "model").rglob("*.yaml")))


@pytest.mark.parametrize("name", ["configs/tune/space.yaml", "tune/space.yaml"])
def test_config_is_printed_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["configs", name])
    assert capsys.readouterr().out == (CONFIGS / "tune" / "space.yaml").read_text("utf-8")


def test_all_are_listed_by_the_name_of_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    main(["configs", "configs"])
    assert len(capsys.readouterr().out.splitlines()) == len(list(CONFIGS.rglob("*.yaml")))


def test_misspelled_name_gets_a_suggestion() -> None:
    with pytest.raises(SystemExit, match=r"did you mean configs/model/tiny_base\.yaml\?"):
        main(["configs", "model/tinybase.yaml"])
