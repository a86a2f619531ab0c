import io
import json
import sys
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from lit_entrodrop import __version__
from lit_entrodrop.cli.main import main
from lit_entrodrop.commands.regularizers import command, details
from lit_entrodrop.commands.regularizers.catalog import Catalog, find_all
from lit_entrodrop.commands.regularizers.combinations import refusals
from lit_entrodrop.commands.regularizers.description import describe
from lit_entrodrop.runs.metrics_file import read_metrics
from regularizers import EmbeddingDropout, EntroDrop, Regularizer
from regularizers.discovery import own_regularizers
from tests.helpers.tiny import Tiny
from tests.regularizers.test_combinations import OnlineEntropy

NAMES = list(own_regularizers())
# Refused where the model has no dropout, or no document is held out.
DEMANDING = [
    name
    for name, kind in own_regularizers().items()
    if kind().requirements.dropout or kind().requirements.holdout_neighbors
]


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(["regularizers", *words])
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 160])
def test_listing_fits_and_names_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(command, "WIDTH", width)
    text = shown(capsys)
    assert max(map(len, text.splitlines())) <= width
    assert f"lit-entrodrop {__version__}" in text
    for name in NAMES:
        assert name in text
    assert "arXiv 2512.23422" in text
    assert "not usable" not in text


def test_listing_for_programs_has_the_same_content(capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(shown(capsys, "--json"))
    assert [each["name"] for each in told["regularizers"]] == NAMES
    [entrodrop] = [each for each in told["regularizers"] if each["name"] == "EntroDrop"]
    assert entrodrop["needs"] == ["entropies of the last epoch"]
    assert (entrodrop["package"], entrodrop["version"]) == ("lit-entrodrop", __version__)
    assert entrodrop["strength"] == pytest.approx([0.0027, 0.3973], abs=1e-4)
    assert told["problems"] == []


@pytest.mark.parametrize("name", NAMES)
def test_each_explains_itself(capsys: pytest.CaptureFixture[str], name: str) -> None:
    described = find_all().descriptions[name]
    for part in ("summary", "introduction", "formula", "source"):
        assert getattr(described, part), f"{name} has no {part}"
    assert described.introduction.endswith(":")
    assert described.acts_on
    assert described.strength is not None
    for setting in described.settings:
        assert setting.help, f"{name} does not explain {setting.name}"
        assert setting.is_plain, f"{name}: no file can hold the default of {setting.name}"
    raw = shown(capsys, "--explain", name)
    assert raw.endswith(f"\n\n{described.block}")
    # Lines may be broken, and marks of literals are left out.
    text = " ".join(raw.split())
    for part in (described.summary, described.formula, described.source):
        assert " ".join(part.replace("``", "").split()) in text


@pytest.mark.parametrize("name", NAMES)
def test_block_builds_the_defaults(name: str) -> None:
    described = find_all().descriptions[name]
    [entry] = yaml.safe_load(described.block)["model"]["regularizers+"]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Regularizer, "built")
    built = parser.instantiate(parser.parse_object({"built": entry})).built
    assert type(built) is described.kind
    strengths = [each.curriculum(0.3) for each in (built, described.kind())]  # type: ignore[operator]
    assert strengths[0] == strengths[1]


def test_fit_takes_all_blocks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks, words = [], ["fit", "--data.corpus=x"]
    for name in NAMES:
        block = find_all().descriptions[name].block
        (tmp_path / f"{name}.yaml").write_text(block)
        words.append(f"--config={tmp_path / name}.yaml")
        blocks += yaml.safe_load(block)["model"]["regularizers+"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--print_config"])
    assert not ended.value.code
    assert yaml.safe_load(capsys.readouterr().out)["model"]["regularizers"] == blocks


@pytest.mark.parametrize("name", DEMANDING)
def test_fit_runs_with_the_block_of_a_demanding_one(name: str, tiny: Tiny) -> None:
    block = tiny.folder / "block.yaml"
    block.write_text(find_all().descriptions[name].block)
    run = tiny.run("fit", f"--config={block}", "--trainer.max_steps=2")
    assert read_metrics(run)["train/loss"].notna().any()


def test_explanation_for_programs_has_the_block(capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(shown(capsys, "--explain", "EmbeddingDropout", "--json"))
    assert yaml.safe_load(told["regularizer"]["block"]) == {
        "model": {
            "regularizers+": [
                {
                    "class_path": "regularizers.EmbeddingDropout",
                    "init_args": {"curriculum": 0.1, "granularity": "row"},
                }
            ]
        }
    }
    assert told["regularizer"]["settings"][1]["choices"] == ["row", "position", "element"]


@pytest.mark.parametrize("name", ["entro_drop", "EntroDrp", "entrodrop", "regularizers.Entrodrop"])
def test_unknown_name_gets_a_suggestion(name: str) -> None:
    with pytest.raises(SystemExit, match=rf"got {name}: did you mean .*EntroDrop\?"):
        main(["regularizers", "--explain", name])
    with pytest.raises(SystemExit, match="got Xyz: see lit-entrodrop regularizers"):
        main(["regularizers", "--explain", "Xyz"])


def test_name_without_option_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["regularizers", "WaveBound"])
    assert ended.value.code == 2
    assert "got WaveBound: --explain NAME shows one" in capsys.readouterr().err


def test_reason_names_the_other_once(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(shown(capsys, "--explain", "WaveBound").split())
    assert "excludes Flooding: expected no second lower bound" in text


def test_combinations_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = len(NAMES) * (len(NAMES) + 1) // 2
    told = json.loads(shown(capsys, "--combinations", "--json"))
    assert told["regularizers"] == NAMES
    text = shown(capsys, "--combinations")
    assert text.startswith(f"{pairs - len(told['refused'])} of {pairs} pairs of {len(NAMES)} ")
    for refused in told["refused"]:
        assert f"{refused['first']} + {refused['second']}" in text


def test_refused_pairs_are_shown_with_the_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = (EntroDrop, EmbeddingDropout, OnlineEntropy)
    described = {kind.__name__: describe(kind, kind.__name__, "mine", "1") for kind in kinds}
    [refused] = refusals(list(described.values()))
    assert (refused.first, refused.second) == ("EntroDrop", "OnlineEntropy")
    catalog = Catalog(described, ["mine 1 announces nonsense"])
    monkeypatch.setattr(details, "find_all", lambda: catalog)
    text = shown(capsys, "--combinations")
    assert text.startswith("5 of 6 pairs of 3")
    assert "EntroDrop + OnlineEntropy\n  regularizers: expected one entropy source" in text
    assert "not usable: mine 1 announces nonsense" in text
    explained = " ".join(shown(capsys, "--explain", "OnlineEntropy").split())
    assert "excludes EntroDrop: regularizers: expected one entropy source" in explained


def test_any_terminal_can_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, encoding="ascii"))
    main(["regularizers", "--explain", "EntroDrop"])
    print("as JSON:")
    main(["regularizers", "--explain", "EntroDrop", "--json"])
    sys.stdout.flush()
    text, as_json = shown.getvalue().split(b"as JSON:")
    assert b"max / (1 + exp(?steepness" in text
    assert "exp(−steepness" in json.loads(as_json)["regularizer"]["formula"]


def test_what_strangers_print_is_not_among_the_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def talkative() -> Catalog:
        print("Thank you for choosing us!")
        return find_all()

    monkeypatch.setattr(details, "find_all", talkative)
    assert json.loads(shown(capsys, "--json"))["problems"] == []
