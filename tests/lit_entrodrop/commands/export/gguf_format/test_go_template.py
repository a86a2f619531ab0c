import pytest
from transformers import GenerationConfig

from lit_entrodrop.commands.export.gguf_format.go_template import go_template
from lit_entrodrop.commands.export.gguf_format.modelfile import modelfile
from tests.helpers.tokenizer_habits import NO_SYSTEM, make_tokenizer

CHATML = (
    "{{ range .Messages }}"
    '{{ if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
    '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n'
    '{{ else if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n'
    "{{ end }}{{ end }}<|im_start|>assistant\n"
)


@pytest.mark.parametrize("habit", ["chatml", "default_system", "bos"])
def test_text_around_messages_is_translated(habit: str) -> None:
    tokenizer = make_tokenizer(habit)
    template = go_template(tokenizer, adds_bos=habit == "bos")
    assert template is not None
    assert template.text == CHATML
    system = "You are a helpful assistant named Testy."
    assert template.system == (system if habit == "default_system" else "")


def test_bos_that_the_tokenizer_does_not_add_is_in_the_template() -> None:
    template = go_template(make_tokenizer("bos"), adds_bos=False)
    assert template is not None
    assert template.text == f"<|begin_of_text|>{CHATML}"


def test_a_template_that_refuses_system_prompts_has_none() -> None:
    template = go_template(make_tokenizer(chat_template=NO_SYSTEM), adds_bos=False)
    assert template is not None
    assert '"user"' in template.text
    assert '"system"' not in template.text


QUOTES = "{% for m in messages %}{{ '\"\"\"' + m['content'] }}{% endfor %}"
NUMBERED = "{% for m in messages %}{{ loop.index ~ m['content'] }}{% endfor %}"


@pytest.mark.parametrize("template", [NUMBERED, QUOTES, "no messages {{ 1 }}"])
def test_what_is_more_than_text_is_left_to_jinja(template: str) -> None:
    tokenizer = make_tokenizer(chat_template=template)
    assert go_template(tokenizer, adds_bos=False) is None
    lines = modelfile("a.gguf", tokenizer, GenerationConfig(), [0]).splitlines()
    assert lines[0] == "FROM ./a.gguf"
    assert "REQUIRES 0.30.0" in lines
    assert not any(line.startswith("TEMPLATE") for line in lines)


@pytest.mark.parametrize("habit", ["think", "tools"])
def test_reasoning_and_tools_are_left_to_jinja(habit: str) -> None:
    assert go_template(make_tokenizer(habit), adds_bos=False) is None


def test_modelfile_has_stops_and_settings_of_sampling() -> None:
    tokenizer = make_tokenizer("default_system")
    stops = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    generation = GenerationConfig(do_sample=True, temperature=0.5, repetition_penalty=1.1)
    lines = modelfile("a.gguf", tokenizer, generation, stops)
    assert lines.startswith(f'FROM ./a.gguf\nTEMPLATE """{CHATML}"""\nSYSTEM """You are a helpful')
    assert lines.endswith(
        "PARAMETER temperature 0.5\n"
        "PARAMETER repeat_penalty 1.1\n"
        'PARAMETER stop "<|im_end|>"\n'
        'PARAMETER stop "<|endoftext|>"\n'
    )


def test_a_model_without_a_chat_template_continues_text() -> None:
    text = modelfile("a.gguf", make_tokenizer("sentencepiece"), GenerationConfig(), [2])
    assert 'TEMPLATE """{{ .Prompt }}"""' in text
