"""A task: its items as tokens, and their scores."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero_warn
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.chats.stopping import stop_tokens
from lit_entrodrop.evaluation.task.answering import generate, log_likelihoods
from lit_entrodrop.evaluation.task.encoding import encode_answer, encode_prompt
from lit_entrodrop.evaluation.task.items import TaskItem, read_items
from lit_entrodrop.evaluation.task.scoring import SCORES
from lit_entrodrop.evaluation.task.settings import TaskSettings
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.generation import truncate_at
from lit_entrodrop.runs.task_scores import ItemScore
from lit_entrodrop.runtime.ranks import DataRank

# Of metrics that only an output with a whole answer satisfies.
WHOLE = ("exact_match", "contains")


class Task:
    """Items of a task as tokens.

    Prompts that leave no room for an answer in the context are truncated from the left, with a
    warning.

    Args:
        settings: Settings of the task.
        tokenizer: Tokenizer of the model.
        context: Maximum number of tokens of prompt and answer; infinity for no limit.

    Raises:
        ValueError: If an item cannot be read, or no right answer of it fits.
    """

    def __init__(
        self, settings: TaskSettings, tokenizer: PreTrainedTokenizerBase, context: float
    ) -> None:
        self.settings = settings
        self.items = read_items(settings)
        self._tokenizer = tokenizer
        self._stop = stop_tokens(tokenizer)
        self._prompts: list[list[int]] = []
        self._choices: list[list[list[int]]] = []
        for item in self.items:
            with _naming(item):
                self._prompts.append(encode_prompt(item.prompt, tokenizer))
                choices = [encode_answer(item.prompt, each, tokenizer) for each in item.choices]
                self._choices.append(choices)
        self._check_answers()
        self._truncate_prompts(context)

    def score(self, causal_lm: CausalLM, ranks: DataRank) -> list[ItemScore]:
        """Score every item; call it on every rank, and each one returns all scores."""
        outputs = (self._choose if self.settings.metric == "choice" else self._write)(
            causal_lm, ranks
        )
        score = SCORES[self.settings.metric]
        return [
            ItemScore(item.where, item.text, list(item.answers), out, score(out, item.answers))
            for item, out in zip(self.items, outputs, strict=True)
        ]

    def _write(self, causal_lm: CausalLM, ranks: DataRank) -> list[str]:
        sizes = self.settings.max_new_tokens, self._ends, self.settings.batch_size
        return [self._text(each) for each in generate(causal_lm, self._prompts, *sizes, ranks)]

    def _choose(self, causal_lm: CausalLM, ranks: DataRank) -> list[str]:
        """Return the choice of each item that is most likely per character, as `acc_norm` does."""
        pairs = [
            (prompt, choice)
            for prompt, choices in zip(self._prompts, self._choices, strict=True)
            for choice in choices
        ]
        found = iter(log_likelihoods(causal_lm, pairs, self.settings.batch_size, ranks))
        return [
            max(item.choices, key=lambda choice: next(found) / len(choice.strip()))
            for item in self.items
        ]

    def _ends(self, tokens: Sequence[int]) -> bool:
        if tokens[-1] in self._stop:
            return True
        return bool(self.settings.stop) and self._text(tokens) != self._decode(tokens)

    def _text(self, tokens: Sequence[int]) -> str:
        text = self._decode(truncate_at([*tokens], self._stop))
        return min((text.partition(stop)[0] for stop in self.settings.stop), key=len, default=text)

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode([*tokens], skip_special_tokens=True))

    def _check_answers(self) -> None:
        most = self.settings.max_new_tokens
        for item in self.items if self.settings.metric in WHOLE else ():
            # Many tokenizers have fewer tokens for a word with the space before it.
            written = [space + answer for answer in item.answers for space in ("", " ")]
            least = min(len(encode_answer(item.prompt, each, self._tokenizer)) for each in written)
            if least > most:
                raise ValueError(
                    f"monitors.task: {item.where}: expected an answer of at most {most} tokens, "
                    f"got {least}: raise monitors.task.max_new_tokens, or shorten the answer"
                )

    def _truncate_prompts(self, context: float) -> None:
        most = self.settings.max_new_tokens
        answers = [max(map(len, choices), default=most) for choices in self._choices]
        truncated = 0
        for number, (item, prompt, answer) in enumerate(
            zip(self.items, self._prompts, answers, strict=True)
        ):
            room = context - answer
            if room < 1:
                raise ValueError(
                    f"monitors.task: {item.where}: expected room for a prompt in the context of "
                    f"{context} tokens, got an answer of up to {answer}: lower "
                    "monitors.task.max_new_tokens, or shorten the choices"
                )
            if len(prompt) > room:
                self._prompts[number] = prompt[-int(room) :]
                truncated += 1
        if truncated:
            rank_zero_warn(
                f"monitors.task: {truncated} of {len(self.items)} prompts lost their beginning, "
                f"because prompt and answer have at most {context} tokens: shorten the prompts, or "
                "lower monitors.task.max_new_tokens"
            )


@contextmanager
def _naming(item: TaskItem) -> Iterator[None]:
    """Name the item in an error, such as that of a chat template."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"monitors.task: {item.where}: {error}") from error
