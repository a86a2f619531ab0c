"""Errors for bad input are one line: what was expected, what was given and what to do."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lit_entrodrop.cli.main import main
from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.runs.layout import lock_run
from tests.helpers.llama import make_llama
from tests.helpers.tiny import Tiny, build_tokenizer, texts, write_corpus

ENTRODROP = "--model.regularizers+=regularizers.EntroDrop"
Write = Callable[[Path], object]


@dataclass
class Bad:
    """Bad input, and patterns of its error.

    Args:
        named: Regular expressions that the line must match, in any order.
        arguments: Arguments added to a valid command; ``{folder}`` is the folder of the test.
        corpus: Content or writer of the corpus; by default, it is valid.
        suffix: File name suffix of the corpus.
        command: Name of the command.
    """

    named: list[str]
    arguments: list[str] = field(default_factory=list)
    corpus: Write | bytes | str | None = None
    suffix: str = ".jsonl"
    command: str = "fit"


def missing(path: Path) -> None:
    path.unlink(missing_ok=True)


def entropy_file(path: Path) -> None:
    write_corpus(path, texts(60))
    EntropyStore(3, 16, "of-other-blocks").save(path.parent / "other.safetensors")
    (path.parent / "torn.safetensors").write_bytes(b"torn")


def other_tokenizer(path: Path) -> None:
    write_corpus(path, texts(60))
    build_tokenizer(path.parent / "larger", 330)


def hollow_model(path: Path) -> None:
    write_corpus(path, texts(60))
    folder = path.parent / "hollow"
    make_llama().save_pretrained(folder)
    save_file({"entropy": torch.zeros(1)}, folder / "model.safetensors", {"format": "pt"})


GOOD_LINE = '{"text": "acute fever of the heart"}\n'
REFERENCE = [ENTRODROP, "--model.regularizers.entropy_source=reference"]

CORPORA = {
    "missing file": Bad(
        ["corpus.jsonl does not exist", "expected a file, a folder"], corpus=missing
    ),
    "empty file": Bad(["corpus.jsonl is empty", "expected text", "fill it"], corpus=b""),
    "blank file": Bad(["corpus.txt is empty"], corpus=b" \n\n", suffix=".txt"),
    "binary file": Bad(
        ["expected UTF-8 text", "byte 0x", "iconv"], corpus=b"\x89PNG\r\n\x1a\n\0\0", suffix=".txt"
    ),
    "nul bytes": Bad(["byte 0x00 at offset 5"], corpus=b"fever\0cough", suffix=".txt"),
    "latin-1 file": Bad(
        ["expected UTF-8 text", "0xe4 at offset 1", "iconv"],
        corpus="M\u00e4dchen".encode("latin-1"),
        suffix=".txt",
    ),
    "utf-16 file": Bad(["expected UTF-8 text"], corpus="fever".encode("utf-16"), suffix=".txt"),
    "broken JSON line": Bad(
        ["corpus.jsonl line 3: expected JSON", "Repair it"],
        corpus=GOOD_LINE * 2 + '{"text": "acute\n' + GOOD_LINE,
    ),
    "JSON line that is no object": Bad(
        ["line 2: expected a JSON object", "got list"], corpus=GOOD_LINE + "[1]\n"
    ),
    "missing column": Bad(
        ["line 1: expected .* or 'text', ", r"got \['body'\]", "data.columns to {text: body}"],
        corpus='{"body": "acute"}\n',
    ),
    "text that is a number": Bad(
        ["line 2: expected text in column 'text', got int", "Convert it"],
        corpus=GOOD_LINE + '{"text": 7}\n',
    ),
    "text that is null": Bad(["line 1: .*got .*text .null"], corpus='{"text": null}\n'),
    "ragged csv": Bad(
        ["corpus.csv line 3: expected columns separated by ',' with a header", "Quote fields"],
        corpus="text,n\na,1\nb\n",
        suffix=".csv",
    ),
    "broken parquet": Bad(
        ["expected a Parquet file", "Write it again"], corpus=b"x", suffix=".parquet"
    ),
    "unknown extension": Bad(
        [r"expected one of the suffixes .*\.txt", "got '.pdf'"], corpus=b"x", suffix=".pdf"
    ),
    "folder without text": Bad(
        ["contains no supported file", "expected one of"], corpus=Path.mkdir, suffix=""
    ),
    "chat without template": Bad(
        ["has no chat template", "expected one"],
        ["--data.validation=0"],
        corpus='{"messages": [{"role": "user", "content": "hi"}]}\n' * 3,
    ),
    "nothing left for training": Bad(
        ["no document for train", "left none", "Give more documents"], ["--data.validation=0.9999"]
    ),
    "documents too short": Bad(
        ["expected a document with a token to predict", "1 documents skipped: blank", "Give doc"],
        ["--data.validation=0"],
        corpus='{"text": ""}\n',
    ),
    "unknown corpus": Bad(
        ["unknown corpus 'nope'", "expected one of hpo"], ["--data.corpus=registry:nope"]
    ),
}

SETTINGS = {
    "block size of 1": Bad(["block_size", "from 2 to", "got 1"], ["--data.block_size=1"]),
    "block size over the context": Bad(
        ["block_size", "context of llama, 64", "got 65", "lower"], ["--data.block_size=65"]
    ),
    "batch size of 0": Bad(["batch_size", "at least 1"], ["--data.batch_size=0"]),
    "shares without training": Bad(["less than 1", "1.5"], ["--data.validation=1.5"]),
    "quantile above 1": Bad(
        ["quantile", r"in \(0, 1\]", "got 1.5"], [ENTRODROP, "--model.regularizers.quantile=1.5"]
    ),
    "quantile of 0": Bad(["quantile", "got 0"], [ENTRODROP, "--model.regularizers.quantile=0"]),
    "probability above 1": Bad(
        ["curriculum", r"probability in \[0, 1\]", "got 1.5"],
        [ENTRODROP, "--model.regularizers.curriculum=1.5"],
    ),
    "negative probability": Bad(
        ["strength >= 0", "-0.5"], [ENTRODROP, "--model.regularizers.curriculum=-0.5"]
    ),
    "unknown replacement": Bad(
        ["replacement", "'mean_embedding'", "blank"],
        [ENTRODROP, "--model.regularizers.replacement=blank"],
    ),
    "mask token that the tokenizer lacks": Bad(
        ["'mask_token' needs a tokenizer with a mask token", "use 'zero'"],
        [ENTRODROP, "--model.regularizers.replacement=mask_token"],
    ),
    "two entropy sources": Bad(
        ["expected one entropy source", "online", "last_epoch", "same entropy_source"],
        [ENTRODROP, ENTRODROP, "--model.regularizers.entropy_source=online"],
    ),
    "no end": Bad(["max_epochs >= 1", "max_epochs=-1"], ["--trainer.max_epochs=-1"]),
    "no epoch": Bad(["max_epochs >= 1", "max_epochs=0"], ["--trainer.max_epochs=0"]),
    "final learning rate above the peak": Bad(
        ["lr_schedule", "final=2"], ["--model.lr_schedule.final=2"]
    ),
    "unknown option": Bad(["--data.blok_size=8", "fit --help"], ["--data.blok_size=8"]),
    "unknown option of a regularizer": Bad(
        ["'quantil' is not accepted"], [ENTRODROP, "--model.regularizers.quantil=0.5"]
    ),
    "unknown regularizer": Bad(["EntropyDrop"], ["--model.regularizers+=regularizers.EntropyDrop"]),
    "class other than a regularizer": Bad(["Linear"], ["--model.regularizers+=torch.nn.Linear"]),
    "text for a number": Bad(
        ["data.block_size", "whole number, got many"], ["--data.block_size=many"]
    ),
    "missing config file": Bad(["does not exist", "absent.yaml"], ["--config=absent.yaml"]),
}

MODELS = {
    "unknown architecture entry": Bad(
        ["lm.architecture: llama has no hiden_size", "expected some of .*hidden_size"],
        ["--model.lm.architecture.hiden_size=8"],
    ),
    "unknown architecture": Bad(["lama"], ["--model.lm.architecture.model_type=lama"]),
    "unknown override": Bad(
        ["config_overrides: llama has no dropuot"], ["--model.lm.config_overrides.dropuot=0.1"]
    ),
    "two models": Bad(["either pretrained or architecture"], ["--model.lm.pretrained=gpt2"]),
    "no model": Bad(["either pretrained or architecture"], ["--model.lm.architecture=null"]),
    "unknown package": Bad(
        ["'no_such_package', which is not installed: pip install no-such-package"],
        ["--model.lm.architecture=null", "--model.lm.pretrained=package:no_such_package"],
    ),
    "missing model folder": Bad(
        ["expected a model folder", "found no ./absent|found no absent"],
        ["--model.lm.architecture=null", "--model.lm.pretrained=./absent"],
    ),
    "hub model out of reach": Bad(
        ["cannot load the config of 'no/such-model'"],
        ["--model.lm.architecture=null", "--model.lm.pretrained=no/such-model"],
    ),
    "missing tokenizer": Bad(
        ["tokenizer: expected a tokenizer in addition to lm.architecture, got null: set it"],
        ["--model.lm.tokenizer=null"],
    ),
    "tokenizer larger than the model": Bad(
        ["at most 320 tokens, the vocabulary size of the model, got 330", "belongs to the model"],
        ["--model.lm.tokenizer={folder}/larger"],
        corpus=other_tokenizer,
    ),
    "packing that leaks": Bad(
        ["mamba", "lets packed documents see each other", "data.packing to false"],
        [
            "--model.lm.architecture={{model_type: mamba, vocab_size: 320, hidden_size: 16, "
            "num_hidden_layers: 1, state_size: 4}}",
            "--model.lm.attention=eager",
        ],
    ),
    "entropies of other blocks": Bad(
        [
            "expected those of the blocks",
            "got those of of-other-blocks",
            "`lit-entrodrop score` again",
        ],
        [*REFERENCE, "--model.reference={folder}/other.safetensors"],
        corpus=entropy_file,
    ),
    "torn entropy file": Bad(
        ["written by `lit-entrodrop score`", "torn.safetensors"],
        [*REFERENCE, "--model.reference={folder}/torn.safetensors"],
        corpus=entropy_file,
    ),
    "missing entropy file": Bad(
        ["written by `lit-entrodrop score`", "absent.safetensors"],
        [*REFERENCE, "--model.reference={folder}/absent.safetensors"],
    ),
    "entropies where a model is needed": Bad(
        ["reference: expected a model", "name a hub model"],
        [
            "--model.regularizers+=tests.helpers.plugins.ExcessLoss",
            "--model.reference={folder}/other.safetensors",
        ],
        corpus=entropy_file,
    ),
    "scores over another file": Bad(
        ["output: expected a new file or entropies", "torn.safetensors is another kind of file"],
        ["--output={folder}/torn.safetensors"],
        corpus=entropy_file,
        command="score",
    ),
    "scores into no folder": Bad(
        ["corpus.jsonl"], ["--output={folder}/corpus.jsonl/x.safetensors"], command="score"
    ),
    "DeepSpeed": Bad(
        ["got deepspeed_stage_3", "expected auto, ddp, .*fsdp2,"],
        ["--trainer.strategy=deepspeed_stage_3"],
    ),
    "FSDP1 by its name": Bad(
        ["expected auto, ddp, .* got fsdp: FSDP1 is not supported", "configs/strategy/fsdp2.yaml"],
        ["--trainer.strategy=fsdp"],
    ),
    "FSDP1 by the class of Lightning": Bad(
        ["FSDPStrategy: FSDP1 is not supported", "add configs/strategy/fsdp2.yaml"],
        ["--trainer.strategy=lightning.pytorch.strategies.FSDPStrategy"],
    ),
    "FSDP1 by the class of an earlier version": Bad(
        ["FSDPStrategy: FSDP1 is not supported", "add configs/strategy/fsdp2.yaml"],
        ["--trainer.strategy=lit_entrodrop.training.strategies.FSDPStrategy"],
    ),
    "backend that cannot run": Bad(
        ["head: 'triton' cannot run here: Triton [^;]*; use 'auto' or 'torch'$"],
        ["--model.lm.head=triton"],
    ),
    "model without its weights": Bad(
        ["expected the weights of llama and its head .*lacks 1[0-9] of them", "complete causal LM"],
        ["--model.lm.architecture=null", "--model.lm.pretrained={folder}/hollow"],
        corpus=hollow_model,
    ),
    "file other than a checkpoint": Bad(
        ["ckpt_path: expected a checkpoint written by `fit`", "corpus.jsonl"],
        ["--ckpt_path={folder}/corpus.jsonl"],
    ),
    "missing checkpoint": Bad(
        ["ckpt_path: expected a checkpoint", "absent.ckpt"], ["--ckpt_path={folder}/absent.ckpt"]
    ),
    "last checkpoint of no run": Bad(
        ["ckpt_path: expected a checkpoint", "found no .*last.ckpt"],
        ["--ckpt_path=last"],
        command="validate",
    ),
    "missing split to predict": Bad(
        ["data.test: expected", "--data.test 0.1"], ["--data.predict_split=test"], command="predict"
    ),
    "missing test split": Bad(["data.test: expected", "--data.test 0.1"], command="test"),
}

TABLE = {**CORPORA, **SETTINGS, **MODELS}


@pytest.mark.parametrize("name", TABLE)
def test_bad_input_ends_with_one_line(
    tiny: Tiny, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = TABLE[name]
    monkeypatch.chdir(tiny.folder)
    if case.corpus is not None:
        tiny.corpus.unlink()
        tiny.corpus = tiny.corpus.with_suffix(case.suffix)
        if callable(case.corpus):
            case.corpus(tiny.corpus)
        else:
            content = case.corpus.encode() if isinstance(case.corpus, str) else case.corpus
            tiny.corpus.write_bytes(content)
    line = refuse(
        tiny,
        case.command,
        [argument.format(folder=tiny.folder) for argument in case.arguments],
        capsys,
    )
    for pattern in case.named:
        assert re.search(pattern, line), (pattern, line)
    assert not list(tiny.folder.rglob("*.ckpt"))


def refuse(
    tiny: Tiny, command: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> str:
    """Run a command that must fail, and return its error line."""
    with pytest.raises(SystemExit) as ended:
        tiny.run(command, *arguments)
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert ended.value.code not in (0, None)
    # The interpreter prints the argument of sys.exit.
    lines = [str(ended.value.code)] if isinstance(ended.value.code, str) else printed.splitlines()
    errors = [line for line in lines if re.match(r"lit-entrodrop( \w+)?: error: ", line)]
    assert len(errors) == 1, printed
    assert "\n" not in errors[0]
    if ended.value.code == 2:
        assert lines[-1] == errors[0]
        assert len(lines) == 1
    return errors[0]


def test_folder_of_an_existing_run_is_rejected_and_unchanged(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny.run("fit")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    line = refuse(tiny, "fit", ["--trainer.max_epochs=9"], capsys)
    assert f"expected a new folder, but {run} has a run" in line
    assert "--ckpt_path last" in line
    with lock_run(run):
        line = refuse(tiny, "fit", ["--ckpt_path=last"], capsys)
    assert f"nothing trains, got {run}: process {os.getpid()} on" in line
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_command_succeeds_after_the_error_is_fixed(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(tiny, "fit", ["--data.block_size=65"], capsys)
    refuse(tiny, "fit", ["--model.lm.architecture.hiden_size=8"], capsys)
    refuse(tiny, "fit", ["--trainer.callbacks+=tests.helpers.plugins.FailInEpoch"], capsys)
    assert (tiny.folder / "run" / "metrics.csv").exists()
    with pytest.warns(UserWarning, match=r"removed metrics\.csv, .* before its first checkpoint"):
        run = tiny.run("fit")
    assert (run / "checkpoints" / "last.ckpt").exists()
    assert not (run / "lock").exists()


def finite(path: Path) -> bool:
    state = torch.load(path, weights_only=True)["state_dict"]
    return all(bool(tensor.isfinite().all()) for tensor in state.values())


def test_nan_loss_stops_and_keeps_the_last_good_checkpoint(
    tiny: Tiny, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tiny.folder / "poison.py").write_text(
        "import math, torch\n"
        "from regularizers import Regularizer\n"
        "class Poison(Regularizer):\n"
        "    def on_loss(self, loss, outputs, step):\n"
        "        return loss + (math.nan if step.global_step == 13 else 0.0)\n"
    )
    monkeypatch.syspath_prepend(str(tiny.folder))
    line = refuse(tiny, "fit", ["--model.regularizers+=poison.Poison"], capsys)
    last = tiny.folder / "run" / "checkpoints" / "last.ckpt"
    assert re.search(r"got nan at step 14 on blocks \[\d+, \d+, \d+, \d+\]", line)
    assert f"last good checkpoint: {last.resolve()}" in line
    assert torch.load(last, weights_only=True)["global_step"] == 10
    assert finite(last)
    assert finite(last.with_name("best.ckpt"))


def test_huge_learning_rate_stops(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    line = refuse(tiny, "fit", ["--model.optimizer.init_args.lr=1e30"], capsys)
    assert re.search(r"expected a finite number, got (nan|inf) at step \d+ on blocks", line)
    assert "Lower the learning rate" in line
    assert all(finite(path) for path in tiny.folder.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (
            ["export", "--ckpt_path=absent.ckpt", "--output=out"],
            "absent.ckpt, which does not exist",
        ),
        (["export", "--output=out"], "ckpt_path"),
        (["export", "--ckpt_path=a", "--output=out", "--dtype=int8"], "int8"),
        (["quickstart", "--sed=1"], "--sed=1"),
        (["train"], "got train"),
        (["report", "--runs", "a", "--titel=b"], "unrecognized arguments: --titel=b"),
        (["compare", "--runs", "a", "--seed=1"], "unrecognized arguments: --seed=1"),
        (["regularizers", "--jsn"], "got --jsn"),
        (["doctor", "--json"], "expected one argument"),
        (["plan", "--mfu=high"], "invalid float value: 'high'"),
        (["verify-resume", "--steps=many"], "invalid int value: 'many'"),
        (["doctor", "--data.blok_size=8"], "unrecognized arguments: --data.blok_size=8"),
    ],
)
def test_bad_command_ends_with_one_line(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            main(arguments)
    code = ended.value.code
    lines = [code] if isinstance(code, str) else capsys.readouterr().err.splitlines()
    assert code
    assert len(lines) == 1
    assert re.match(r"lit-entrodrop( [\w-]+)?: error: ", lines[0])
    assert named in lines[0]
    assert list(tmp_path.iterdir()) == []
