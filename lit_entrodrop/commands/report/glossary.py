"""Definitions of the numbers on the page."""

from lit_entrodrop.commands.report.run_record import RunRecord
from lit_entrodrop.evaluation.diagnosis import RULE

TERMS = {
    "Loss": (
        "Mean negative log-likelihood of the next token, in nats (natural logarithm): the sum over "
        "all counted tokens, divided by their number. Perplexity is exp(loss). Measured on clean "
        "input without regularizers, unless stated otherwise."
    ),
    "Training loss, as optimized": (
        "Loss on the training batches, with the regularizers active and while the model changes. "
        "Each point is the mean over the steps since the last log entry."
    ),
    "Clean training loss": (
        "Loss on a fixed sample of training text, measured at each validation like the validation "
        "loss: on clean input, without regularizers."
    ),
    "Gap": (
        "Validation loss minus clean training loss: how much better the model predicts its "
        "training text than new text."
    ),
    "Epoch": "One pass over the training data. Epoch 0 is before training.",
    "Entropy": (
        "−Σ p log p of the model's distribution over the next token, in nats: 0 if the model is "
        "certain, log(vocabulary size) if all tokens are equally likely."
    ),
    "Bucket (low-, mid-, high-entropy tokens)": (
        "A group of validation tokens, by their entropy under the initial model. A token stays in "
        "its bucket for the whole run, so the losses of all epochs are comparable."
    ),
    "Best epoch": (
        "The evaluation with the lowest validation loss. The diagnosis of a run includes the "
        "evaluation before training; a comparison of runs does not. The 95% interval comes from "
        "bootstrap resamples of the validation documents."
    ),
    "Onset": "The first evaluation after the best epoch of tokens that overfit.",
    "Rise": (
        "Last validation loss minus the lowest one, with its 95% interval over validation "
        "documents."
    ),
    "Strength": (
        "Target set by the curriculum of a regularizer at this point of training. For token "
        "dropout it is the probability of dropping an eligible token."
    ),
    "Drop rate": (
        "Share of tokens actually dropped, of those that may be, which are neither special nor "
        "padding. Tables give the mean over training."
    ),
    "Memorized verbatim": (
        "Share of documents whose beginning is continued exactly by greedy decoding."
    ),
    "Forgetting": "Rise of the loss on general text that is not in the training data.",
    "Change of loss (of a token)": (
        "Loss at the last evaluation minus loss at the best one. Above zero, the model predicts "
        "this token worse than before."
    ),
}
COMPARISON_TERMS = {
    "Arm, baseline": (
        "An arm is one way of training, run with one or more seeds. The baseline is the arm that "
        "all others are compared with."
    ),
    "Difference and its interval": (
        "Mean of one arm minus mean of the other, over the seeds that both have. With two or more "
        "seeds, the 95% interval is Student's t over the differences of the seeds; it says what "
        "other seeds would give. With one seed, it is a paired bootstrap over documents; it says "
        "what other documents would give for these two trained models, but nothing about other "
        "seeds. “Points” are percentage points."
    ),
    "p and p, corrected": (
        "Probability of a difference at least this large if the arms did not differ. With two or "
        "more seeds: paired t-test over seeds. With one seed: a permutation test, in which the two "
        "losses of each document are swapped at random. Corrected (Holm) for the number of "
        "comparisons."
    ),
    "Better, worse, no difference shown": (
        "Better or worse: the corrected p value is below 5%. No difference shown: it is not, which "
        "does not mean that the arms are equal. Not tested: the losses of documents or of a second "
        "seed are missing."
    ),
}


def glossary(runs: list[RunRecord], compared: bool) -> dict[str, str]:
    """Return the definitions of the numbers on the page of these runs."""
    rule = {"Overfits": RULE} if any(run.diagnosis for run in runs) else {}
    return TERMS | (COMPARISON_TERMS if compared else {}) | rule
