"""Data sets in the layout of the hub, in local folders, and a hub that refuses them."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import datasets
import pytest
from huggingface_hub import constants

from lit_entrodrop.data.reading_options import ReadingOptions
from lit_entrodrop.data.sources import digest_corpus
from lit_entrodrop.data.sources.hub import HubDataset, parse_hub
from lit_entrodrop.model.hub import use_cache_if_unreachable
from tests.lit_entrodrop.data.conftest import write_jsonl
from tests.lit_entrodrop.data.sources.test_sources import contents

CARD = """---
configs:
- {config_name: plain, data_files: [{split: train, path: a.jsonl}, {split: test, path: b.jsonl}]}
- {config_name: exam, data_files: [{split: test, path: b.jsonl}]}
---
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A dataset with two configs."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "org"
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    write_jsonl(folder / "a.jsonl", [{"text": "one"}, {"text": "two"}])
    write_jsonl(folder / "b.jsonl", [{"text": "three"}, {"text": "four"}])
    return f"hub:{folder}"


@pytest.fixture
def requested() -> Iterator[list[str]]:
    """Paths requested from a hub, on this machine, that refuses access to every dataset."""
    paths: list[str] = []

    class Refusal(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            paths.append(self.path)
            gated = "gated" in self.path
            self.send_response(403 if gated else 401)
            self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
            self.end_headers()

        do_GET = do_HEAD

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    use_cache_if_unreachable.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "ENDPOINT", url)
        template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        for name, value in {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": False}.items():
            patch.setattr(datasets.config, name, value)
        yield paths
    use_cache_if_unreachable.cache_clear()
    server.shutdown()
    server.server_close()


def test_gated_or_private_dataset_of_a_revision_is_refused(requested: list[str]) -> None:
    with pytest.raises(ValueError, match=r"hub:org/gated@v7: .* is a gated .*hf auth login.*"):
        contents("hub:org/gated@v7")
    with pytest.raises(ValueError, match=r"hub:org/own: .* cannot be accessed\. .*hf auth login.*"):
        contents("hub:org/own")
    assert any(path.startswith("/datasets/org/gated/resolve/v7/") for path in requested)


def test_config_and_split_are_chosen(source: str) -> None:
    assert contents(f"{source}:plain") == ["one", "two"]
    assert contents(f"{source}:plain[test]") == ["three", "four"]
    assert contents(f"{source}:exam[test[:1]]") == ["three"]
    plain = digest_corpus([f"{source}:plain"], ReadingOptions())
    assert plain == digest_corpus([f"{source}:plain[train]"], ReadingOptions())
    assert plain != digest_corpus([f"{source}:plain[test]"], ReadingOptions())


@pytest.mark.parametrize(
    ("suffix", "problem"),
    [
        (":exam", r"Should be one of \['test'\]"),
        (":none", r"Available: \['plain', 'exam'\]"),
        ("", r"pick one among the available configs: \['plain', 'exam'\]"),
    ],
)
def test_unknown_choice_lists_what_there_is(source: str, suffix: str, problem: str) -> None:
    with pytest.raises(
        ValueError, match=f"cannot load hub:.*{problem}.*:config@revision"
    ) as caught:
        contents(source + suffix)
    assert "\n" not in str(caught.value)


def test_code_of_a_dataset_never_runs(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match="scripts are no longer supported"):
        contents(f"hub:{folder}")
    assert not (tmp_path / "ran").exists()


def test_name_is_parsed() -> None:
    assert parse_hub("hub:org/name@main") == HubDataset("org/name", revision="main")
    assert parse_hub("hub:a/b:en@refs/convert/parquet[train+test]") == HubDataset(
        "a/b", "en", "refs/convert/parquet", "train+test"
    )
    assert parse_hub("hub:name[dev]") == HubDataset("name", split="dev")


@pytest.mark.parametrize(
    "source", ["hub:", "hub::en", "hub:a/b:", "hub:a/b@", "hub:a/b[]", "hub:a/b[x"]
)
def test_incomplete_name_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match=r"expected hub:org/name:config@revision\[split\], where"):
        parse_hub(source)
