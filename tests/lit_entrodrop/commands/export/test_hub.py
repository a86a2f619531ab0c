"""Uploads, to a server on this machine that records what the hub would receive."""

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import constants

from lit_entrodrop.commands.export.hub import (
    check_access,
    check_repository,
    describe_push,
    push,
)
from lit_entrodrop.model.hub import use_cache_if_unreachable


class Hub(BaseHTTPRequestHandler):
    """The parts of the hub's protocol that an upload of small files needs."""

    received: dict[str, Any]

    def do_HEAD(self) -> None:
        self.answer({})

    def do_GET(self) -> None:
        self.answer({"name": "me", "orgs": [{"name": "lab"}]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in files
            ]
            self.answer({"files": modes})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.received[value["path"]] = base64.b64decode(value["content"])
            url = f"http://{self.headers['Host']}/lab/mine/commit/1"
            self.answer({"commitUrl": url, "commitOid": "1", "hookOutput": "", "success": True})
        elif self.path == "/api/repos/create":
            self.received["repository"] = json.loads(body)
            self.answer({"url": f"http://{self.headers['Host']}/lab/mine"})
        else:
            self.answer({"errors": []})

    def answer(self, content: Any, status: int = 200) -> None:
        self.send_response(status)
        text = json.dumps(content).encode()
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    received: dict[str, Any] = {}
    handler = type("RecordingHub", (Hub,), {"received": received})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        use_cache_if_unreachable.cache_clear()
        yield received
        server.shutdown()
    use_cache_if_unreachable.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(1234))
    return folder


@pytest.mark.parametrize("private", [True, False])
def test_all_files_are_uploaded(
    hub: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    check_access("lab/mine")
    assert push(folder, "lab/mine", private).endswith("/lab/mine/commit/1")
    repository = hub.pop("repository")
    assert (repository["organization"], repository["name"]) == ("lab", "mine")
    # Later versions of huggingface_hub send the visibility.
    visibility = repository.get("visibility", "private" if repository.get("private") else "public")
    assert visibility == ("private" if private else "public")
    assert hub == {"config.json": b"{}", "model.safetensors": bytes(1234)}


def test_token_of_another_owner_is_refused(
    hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(ValueError, match=r"push_to: expected an owner among me, lab, .* got other"):
        check_access("other/mine")


def test_no_token(hub: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"push_to: expected a token of the hub, found none: run"):
        check_access("lab/mine")


def test_no_network() -> None:
    use_cache_if_unreachable.cache_clear()
    with pytest.raises(ValueError, match="push_to: HF_HUB_OFFLINE is set: connect"):
        check_access("lab/mine")


@pytest.mark.parametrize("name", ["mine", "lab/mine/2", "lab/mi ne", ""])
def test_name_that_is_no_repository(name: str) -> None:
    with pytest.raises(ValueError, match=f"push_to: expected owner/name on the hub, got '{name}'"):
        check_repository(name)


def test_dry_run_lists_files_and_sizes(folder: Path) -> None:
    assert describe_push(folder, "lab/mine", private=True).splitlines() == [
        "dry run: would upload 2 files, 1,236 bytes, to lab/mine (private if it is new):",
        "              2  config.json",
        "          1,234  model.safetensors",
    ]
