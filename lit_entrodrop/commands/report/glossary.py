"""How each number on the page is defined."""

from lit_entrodrop.commands.report.run import Run
from lit_entrodrop.evaluation.diagnosis import RULE

TERMS = {
    "Loss": (
        "Mean negative log-likelihood of the next token, in nats (natural logarithm): the sum over "
        "all tokens that count divided by their number. Perplexity is e to the loss. Measured on "
        "clean input, without any regularizer, unless it says otherwise."
    ),
    "Training loss, as optimised": (
        "The same on the training batches themselves, under the regularizers and while the model "
        "changes; a mean over the steps since the last entry of the log."
    ),
    "Clean training loss": (
        "Loss on a fixed sample of training text, measured at each validation in the same way as "
        "validation loss: without regularizers, on clean input."
    ),
    "Gap": (
        "Validation loss minus clean training loss: how much better the model knows the text that "
        "it was trained on."
    ),
    "Epoch": "One pass over the training data. Epoch 0, or “start”, is before any training.",
    "Entropy": (
        "−Σ p log p of the model's distribution over the next token, in nats: 0 when the model is "
        "certain; log of the vocabulary's size when it has no idea."
    ),
    "Bucket": (
        "A group of validation tokens by the entropy that the initial model had at them. A token "
        "stays in its bucket for the whole run, so that losses compare between epochs."
    ),
    "Best epoch": (
        "The evaluation with the lowest validation loss. In the verdict on a run, that before "
        "training counts too; where runs are compared, it does not. Its interval holds the best "
        "epochs of 95 % of bootstrap resamples of the validation documents."
    ),
    "Onset": "The first evaluation after the best one, where a bucket overfits.",
    "Rise": (
        "Last validation loss minus the best one, with its 95 % interval over validation documents."
    ),
    "Strength": (
        "What the curriculum of a regularizer asks for at this moment of training; for token "
        "dropout the probability that an eligible token is dropped."
    ),
    "Drop rate": (
        "Share that was dropped of the tokens of a batch that may be altered, which are neither "
        "special nor padding; in tables a mean over training."
    ),
    "Recited verbatim": (
        "Share of documents whose next tokens greedy decoding continues word for word from their "
        "beginning."
    ),
    "Forgetting": "Rise of the loss on general text that is no part of the training data.",
    "Change of a token's loss": (
        "Its loss at the last evaluation minus that at the best one, by validation loss. Above "
        "zero the model has become worse at this token."
    ),
    "Difference and its interval": (
        "Mean of an arm minus that of the arm it is compared with, over the seeds that both have. "
        "With two seeds or more, the 95 % interval is Student's t over the differences of seeds: "
        "other seeds are what it speaks of. With one seed it is a bootstrap over documents: they "
        "are drawn again with replacement, the same for both arms, and 95 % of the differences "
        "found lie within. That speaks of these two trained models on other documents, not of "
        "other seeds. “Points” are percentage points."
    ),
    "p and p, corrected": (
        "How often a difference at least as large would come by chance if there were none: by the "
        "paired t-test over seeds; with one seed by a permutation test, in which the two losses of "
        "each document change places by chance. Corrected (Holm) for the number of comparisons."
    ),
}
OF_COMPARISONS = ("Difference and its interval", "p and p, corrected")


def glossary(runs: list[Run], compared: bool) -> dict[str, str]:
    """Return the definitions of what the page of these runs shows."""
    terms = {n: text for n, text in TERMS.items() if compared or n not in OF_COMPARISONS}
    return terms | ({"Overfits": RULE} if any(run.diagnosis for run in runs) else {})
