import json
from pathlib import Path
from typing import Any

import pytest

from lit_entrodrop.data.chats.record import Chat
from lit_entrodrop.data.chats.rendering import render
from lit_entrodrop.data.chats.template import read_chat_template, set_chat_template
from tests.helpers.tokenizer_habits import CHATML, NO_SYSTEM, make_tokenizer
from tests.lit_entrodrop.data.conftest import DataModuleFactory, write_jsonl

CHAT = [{"role": "user", "content": "pain"}, {"role": "assistant", "content": "rest"}]


def test_file_and_text_give_the_same_blocks(datamodule: DataModuleFactory, tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text(CHATML, encoding="utf-8")
    corpus = str(write_jsonl(tmp_path / "chats.jsonl", [{"messages": CHAT}] * 4))
    fingerprints, cached = [], []
    for template in (CHATML, str(file), CHATML.replace("<|im_end|>", "<|end|>")):
        module = datamodule(corpus=corpus, validation=0, chat_template=template)
        module.setup()
        assert module.hparams["chat_template"] == module.tokenizer.chat_template
        fingerprints.append(module.fingerprint("train"))
        cached.append(len(list((tmp_path / "cache").iterdir())))
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    assert cached == [1, 1, 2]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("missing.jinja", ["data.chat_template", "'missing.jinja'", "No such file"]),
        ("", ["data.chat_template: expected the path to a .jinja file, or the text", "got ''"]),
        ("plain.jinja", ["a file without a Jinja tag"]),
        ("latin.jinja", ["it is no text in UTF-8"]),
        ("chat_template.json", ["'chat_template.json', a file of JSON"]),
        ("empty.jinja", ["a file without a Jinja tag"]),
        ('{"chat_template": "a"}', ["data.chat_template", "No such file"]),
        (".", ["data.chat_template", "Is a directory"]),
    ],
)
def test_what_is_no_template_is_refused(
    given: str, named: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain.jinja").write_text("Be brief.")
    Path("empty.jinja").touch()
    Path("chat_template.json").write_text(json.dumps({"chat_template": CHATML}))
    Path("latin.jinja").write_bytes(b"\xe9{{ messages }}")
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_chat_template(given)
    assert all(part in str(caught.value) for part in named), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("{% for m in messages %}\n{{ m.content }", ["line 2: unexpected '}'"]),
        ("{{ messages", ["line 1: unexpected end of template"]),
        ("{{ messages | uper }}", ["line 1: No filter named 'uper'"]),
    ],
)
def test_broken_template_is_one_error_before_the_corpus_is_read(
    datamodule: DataModuleFactory, template: str, named: list[Any]
) -> None:
    module = datamodule(corpus="missing.jsonl", chat_template=template)
    with pytest.raises(ValueError, match=r"^data\.chat_template: expected a Jinja") as caught:
        module.setup()
    assert all(part in str(caught.value) for part in named), caught.value
    assert "\n" not in str(caught.value)


def test_template_may_refuse_some_chats() -> None:
    tokenizer = make_tokenizer("chatml")
    set_chat_template(tokenizer, NO_SYSTEM.replace("'system'", "'user'"))
    assert tokenizer.chat_template != CHATML
    # The setting is at fault, not the tokenizer.
    with pytest.raises(ValueError, match=r"^data\.chat_template refuses the chat: "):
        render(Chat(CHAT), tokenizer)
