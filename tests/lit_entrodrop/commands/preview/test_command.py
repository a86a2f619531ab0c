import json
from pathlib import Path

import pytest

from lit_entrodrop.cli.main import main
from tests.helpers.tiny import CONFIGS, Tiny
from tests.helpers.tokenizer_habits import CHATML

ENTRODROP = ("--config", str(CONFIGS / "regularizers" / "entrodrop.yaml"))


def test_config_is_shown_on_terminal_and_page(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tiny.folder / "new" / "preview.html"
    place = ["--trainer.default_root_dir", str(tiny.folder / "run"), "--output", str(page)]
    main(["preview", *tiny.config(), *ENTRODROP, *place, "--progress", "0.9", "--blocks", "2"])
    shown = capsys.readouterr().out
    assert shown.count("train block") == 2
    assert "(progress 0.90), epoch 1, micro-batch 0" in shown
    assert "legend: counts in the loss ‹does not count›" in shown
    assert "entro_drop: strength 0.393, changes" in shown
    assert "Entropies are those of the initial model" in shown
    assert f"Page: {page}" in shown
    assert "entropy 5." in page.read_text("utf-8")
    # Neither a run nor anything beside the page.
    assert not (tiny.folder / "run").exists()
    assert [each.name for each in page.parent.iterdir()] == ["preview.html"]


def test_without_a_model_the_text_is_shown_and_a_note_says_what_is_not(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    # Blocks longer than the context of the model, which `fit` refuses.
    main(["preview", *tiny.config(), *ENTRODROP, "--data.block_size=65"])
    refused = capsys.readouterr().out
    main(["preview", *tiny.config(), "--split=validation", "--no_model"])
    asked = capsys.readouterr().out
    assert "\nvalidation block 0\n" in asked
    assert "No model (--no_model)" in asked
    refused = " ".join(refused.split())
    assert "No model (" in refused
    assert "Not shown: entro_drop, which needs the model." in refused
    assert "train block" in refused


def test_chat_template_of_a_file_is_used_and_unread_files_are_named(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tiny.folder / "chat.jinja"
    template.write_text(CHATML)
    turns = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}
    # A name with an escape sequence of terminals and a mark that reverses text.
    corpus = tiny.folder / "chats\x1b[2J\u202e<b>"
    corpus.mkdir()
    (corpus / "a.jsonl").write_text(json.dumps({"messages": turns}))
    (corpus / "b.zip").touch()
    own = [f"--data.corpus={corpus}", f"--data.chat_template={template}", "--data.validation=0"]
    page = tiny.folder / "preview.html"
    main(["preview", *tiny.config(), *own, "--no_model", f"--output={page}"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 documents of the format messages" in shown
    assert "↵ ›yo" in shown
    assert "chats␛[2J⟨U+202E⟩<b>: 1 file not read, because archives must be unpacked: b" in shown
    written = page.read_text("utf-8")
    assert written.count("chats␛[2J⟨U+202E⟩&lt;b&gt;") == 3
    assert not {"\x1b", "\u202e"} & {*shown, *written}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--progress=1.5", r"progress: expected a share in \[0, 1\], got 1.5"),
        ("--blocks=0", "blocks: expected a number of at least 1, got 0"),
        ("--output=corpus.jsonl", "output: expected the name of an .html file, got corpus.jsonl"),
        ("--output=/dev/null/a.html", "/dev/null/a.html: could not be written"),
        ("--split=test", "data.test: expected the share or corpus of a test split, got none"),
    ],
)
def test_bad_input_ends_with_one_line(tiny: Tiny, word: str, message: str) -> None:
    with pytest.raises(SystemExit, match=f"^lit-entrodrop: error: [^\n]*{message}[^\n]*$"):
        main(["preview", *tiny.config(), word])
    assert not Path("corpus.jsonl").exists()
