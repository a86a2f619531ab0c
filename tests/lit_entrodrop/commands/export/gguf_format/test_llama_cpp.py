"""llama.cpp itself reads the files: the same tokens of text, and the same greedy continuation."""

import json
import multiprocessing
import signal
import urllib.request
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer

from lit_entrodrop.commands.export.gguf_format.adapters import check_adapters, write_adapters
from lit_entrodrop.commands.export.gguf_format.writing import write_gguf
from tests.helpers.tokenizer_habits import make_tokenizer
from tests.lit_entrodrop.commands.export.gguf_format.test_architectures import MODELS, make_model
from tests.lit_entrodrop.commands.export.gguf_format.test_vocabulary import STEPS, train_tokenizer

llama_cpp: Any = pytest.importorskip("xllamacpp", reason="needs llama.cpp, as xllamacpp")
FORK = multiprocessing.get_context("fork")
TEXT = "mild fever, 1234 weeks\n\n of   it's 🚀 naïve</s>\t I'LL 我想"


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Return a function that loads a file, and returns one that sends requests to llama.cpp."""
    processes = []

    def start(path: Path, **settings: Any) -> Callable[..., Any]:
        receiver, sender = FORK.Pipe(duplex=False)
        process = FORK.Process(target=run_server, args=(sender, path, settings), daemon=True)
        processes.append(process)
        process.start()
        assert receiver.poll(60), "llama.cpp does not start"
        address = receiver.recv()

        def post(place: str, **body: Any) -> Any:
            request = urllib.request.Request(
                address + place, json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)

        return post

    yield start
    for process in processes:
        process.kill()
        process.join()


def run_server(sender: Connection, path: Path, settings: dict[str, Any]) -> None:
    """Serve a file until the process is killed: a server may never end by itself."""
    params = llama_cpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 64
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = False
    params.verbosity = -1
    for name, value in settings.items():
        setattr(params, name, value)
    server = llama_cpp.Server(params)
    sender.send(server.listening_address)
    signal.pause()


def tokens_of(post: Callable[..., Any], text: str) -> list[int]:
    tokens: list[int] = post("/tokenize", content=text, add_special=True)["tokens"]
    return tokens


def generate(model: Any, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    whole = model.generate(
        input_ids=ids, max_new_tokens=16, do_sample=False, eos_token_id=None, pad_token_id=1
    )
    written: list[int] = whole[0, len(prompt) :].tolist()
    return written


def assert_same_continuation(post: Callable[..., Any], model: Any, prompt: list[int]) -> None:
    answer = post(
        "/completion",
        prompt=prompt,
        n_predict=16,
        temperature=0,
        return_tokens=True,
        ignore_eos=True,
        cache_prompt=False,
    )
    assert answer["tokens"] == generate(model, prompt)


@pytest.mark.parametrize("name", MODELS)
def test_same_greedy_tokens(
    tmp_path: Path, tiny_tokenizer: Path, name: str, serve: Callable[..., Any]
) -> None:
    model, tokenizer = make_model(**MODELS[name]), AutoTokenizer.from_pretrained(tiny_tokenizer)
    write_gguf(tmp_path / "a.gguf", model, tokenizer, [0], "float32")
    post = serve(tmp_path / "a.gguf")
    prompt = tokenizer(TEXT).input_ids[:40]
    assert_same_continuation(post, model, prompt)


@pytest.mark.parametrize("name", ["tied", "qwen2"])
def test_adapters_alone(
    tmp_path: Path, tiny_tokenizer: Path, name: str, serve: Callable[..., Any]
) -> None:
    model, tokenizer = make_model(**MODELS[name]), AutoTokenizer.from_pretrained(tiny_tokenizer)
    write_gguf(tmp_path / "base.gguf", model, tokenizer, [0], "float32")
    prompt = tokenizer(TEXT).input_ids[:40]
    plain = generate(model, prompt)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", use_rslora=True)
    adapted = get_peft_model(model, config, adapter_name="default")
    for weight in adapted.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.2)
    check_adapters(adapted)
    write_adapters(tmp_path / "adapters.gguf", adapted, "float32")
    adapters = llama_cpp.CommonAdapterLoraInfo()
    adapters.path, adapters.scale = str(tmp_path / "adapters.gguf"), 1.0
    post = serve(tmp_path / "base.gguf", lora_adapters=[adapters])
    assert generate(adapted, prompt) != plain
    assert_same_continuation(post, adapted, prompt)


@pytest.mark.parametrize("name", STEPS)
def test_same_tokens_of_text(tmp_path: Path, name: str, serve: Callable[..., Any]) -> None:
    tokenizer = train_tokenizer(STEPS[name], name == "llama-bpe")
    tokenizer.add_tokens(["dyspnea"])
    model = make_model(vocab_size=512, num_hidden_layers=1)
    write_gguf(tmp_path / "a.gguf", model, tokenizer, [0], "float32")
    post = serve(tmp_path / "a.gguf")
    for text in (TEXT, "  12 \n \n\n ... dyspnea\t", "three weeks'll"):
        assert tokens_of(post, text) == tokenizer(text).input_ids


def test_chats_are_rendered_and_end_where_the_model_stops(
    tmp_path: Path, serve: Callable[..., Any]
) -> None:
    tokenizer = make_tokenizer("bos")
    turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model = make_model(vocab_size=len(tokenizer), num_hidden_layers=1)
    write_gguf(tmp_path / "a.gguf", model, tokenizer, [tokenizer.eos_token_id, turn], "float32")
    post = serve(tmp_path / "a.gguf")
    chat = [{"role": "user", "content": "acute fever"}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert post("/apply-template", messages=chat)["prompt"] == prompt.removeprefix(
        "<|begin_of_text|>"
    )
    assert tokens_of(post, "a")[0] == tokenizer.bos_token_id
    for token in (turn, tokenizer.eos_token_id):
        # The bias makes it the next token.
        answer = post("/completion", prompt="a", n_predict=4, logit_bias=[[token, 1000.0]])
        assert answer["stop_type"] == "eos"
