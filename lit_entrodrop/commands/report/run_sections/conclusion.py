"""Opening of the page: the finding, the numbers behind it and what to do next."""

from collections.abc import Sequence

import numpy as np

from lit_entrodrop.commands.report.records.run_record import RunRecord
from lit_entrodrop.evaluation.conclusion import Conclusion, NextStep
from lit_entrodrop.evaluation.diagnosis.explanation import MORE_DOCUMENTS, enumeration
from lit_entrodrop.runs.criterion import best_value_of
from lit_entrodrop.runs.metric_name import VALIDATION_LOSS

MOST_NAMED = 4


def conclude_run(run: RunRecord) -> Conclusion:
    """Say whether a run overfits, and what to do."""
    if run.diagnosis is None:
        return _undiagnosed(run)
    found = run.diagnosis.explanation
    kind = run.diagnosis.verdicts["all"].kind
    sentences = [*found.evidence, *on_average(run)]
    sentences.append(f"Measured on {_measured_on(run)} in one training run.")
    if kind == "holds":
        sentences.append("No overfitting shown does not prove that there is none.")
    elif kind != "unknown":
        sentences.append(
            "The rise is tested over these documents at 95% confidence, not over seeds."
        )
    return Conclusion(found.headline, " ".join(sentences), _next_steps(run))


def conclude_runs(runs: Sequence[RunRecord]) -> Conclusion:
    """Say which of several runs has the lowest validation loss; nothing is tested."""
    curves = [run.best_loss() for run in runs]
    order = sorted(range(len(runs)), key=lambda i: curves[i].min() if len(curves[i]) else np.inf)
    evaluated = [i for i in order if len(curves[i])]
    if not evaluated:
        headline = (
            f"Too early to judge: none of {len(runs)} runs was evaluated after training began"
        )
        return Conclusion(headline, "Each run has only the evaluation before training.")
    best = runs[evaluated[0]]
    losses = _first([f"{runs[i].name} {curves[i].min():.3f}" for i in evaluated])
    overfitting = [run.name for run in runs if run.diagnosis and run.diagnosis.overfits]
    verb = "overfits" if len(overfitting) == 1 else "overfit"
    summary = (
        f"Lowest validation loss since training began, in nats per token: {losses}. The "
        "differences are not tested and can be chance. "
        f"{f'{_first(overfitting)} {verb}' if overfitting else 'No run is shown to overfit'}."
    )
    test = NextStep(
        "Test whether the differences are more than chance.",
        f"lit-entrodrop compare --runs {' '.join(run.location for run in runs)}",
    )
    return Conclusion(
        f"{best.name} has the lowest validation loss, which is not a tested difference",
        summary,
        [test, export_best(best)],
    )


def on_average(run: RunRecord) -> list[str]:
    """Compare the lowest loss of the averaged weights with that of the raw ones; nothing is tested.

    The list is empty for a run without averages.
    """
    averaged, raw = run.averaged_loss(), run.trained_loss()
    if not len(averaged) or not len(raw):
        return []
    gain = raw.min() - averaged.min()
    other = "lower" if gain > 0 else "higher"
    return [
        f"The averaged weights have their lowest validation loss after epoch "
        f"{averaged.idxmin():.3g}, {averaged.min():.3f} nats per token; that is {abs(gain):.3f} "
        f"{other} than the lowest of the raw weights, after epoch {raw.idxmin():.3g}, which is not "
        "tested."
    ]


def _first(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return enumeration([*names[:MOST_NAMED], *([f"{more} more"] if more > 0 else [])])


def export_best(run: RunRecord) -> NextStep:
    """Offer the best checkpoint."""
    text = f"Use the checkpoint with {best_value_of(run.selected_by)}"
    if run.selected_by == VALIDATION_LOSS:
        text += f", after epoch {run.best_loss().idxmin():.3g}"
    return NextStep(f"{text}.", export_command(run.location))


def export_command(folder: str) -> str:
    """Return the command that exports the best checkpoint."""
    return f"lit-entrodrop export --ckpt_path {folder}/checkpoints/best.ckpt --output my_model"


def train_again(run: RunRecord, text: str, suffix: str, options: str) -> NextStep:
    """Offer a new run with other options, in a new folder."""
    return NextStep(
        text,
        f"lit-entrodrop fit --config {run.location}/config.yaml {options} "
        f"--trainer.default_root_dir {run.location}-{suffix}",
    )


def _measured_on(run: RunRecord) -> str:
    documents = int((run.detailed[-1].tokens[:, 0] > 0).sum())
    corpus = f" of {run.corpus}" if run.corpus else ""
    return f"{documents:,} validation document{'s' * (documents != 1)}{corpus}"


def _undiagnosed(run: RunRecord) -> Conclusion:
    curve = run.curve("val", "loss")
    reason = f"There is no diagnosis, which needs the loss of each document: {run.undiagnosed}."
    if len(curve) < 2:
        headline = "Too early to judge: one evaluation so far"
        return Conclusion(headline, f"The validation loss is {curve.iloc[-1]:.3f}. {reason}")
    numbers = (
        f"The validation loss was lowest after epoch {curve.idxmin():.3g}, {curve.min():.3f} nats "
        f"per token, and is {curve.iloc[-1]:.3f} after epoch {curve.index[-1]:.3g}."
    )
    if curve.idxmin() == curve.index[-1]:
        headline = "The validation loss is at its lowest after the last epoch"
    else:
        headline = f"The validation loss was lowest after epoch {curve.idxmin():.3g}"
        reason = f"Whether it has risen by more than chance is not tested. {reason}"
    return Conclusion(headline, f"{numbers} {reason}", [export_best(run)])


def _next_steps(run: RunRecord) -> list[NextStep]:
    assert run.diagnosis is not None
    whole = run.diagnosis.verdicts["all"]
    if whole.kind == "unknown" and len(run.curve("val", "loss")) > 1:
        return [NextStep(MORE_DOCUMENTS), export_best(run)]
    if whole.kind == "unknown":
        resume = f"lit-entrodrop fit --config {run.location}/config.yaml --ckpt_path last"
        return [NextStep("Let the run continue; this resumes it if it has stopped.", resume)]
    if whole.kind == "diverges" or (whole.overfits and whole.best_epoch == 0):
        slower = "Lower the learning rate, here to a third."
        rate = run.settings("optimizer").get("init_args", {}).get("lr", 1e-3) / 3
        check = f"lit-entrodrop doctor --config {run.location}/config.yaml"
        return [
            train_again(run, slower, "slower", f"--model.optimizer.init_args.lr {rate:.1g}"),
            NextStep("Check the data and the training steps.", check),
        ]
    if not run.diagnosis.overfits and whole.best_epoch == run.diagnosis.last_epoch:
        epochs = max(2, round(2 * run.diagnosis.last_epoch))
        longer = "Train longer: the validation loss still falls."
        more = train_again(run, longer, "longer", f"--trainer.max_epochs {epochs}")
        return [more, export_best(run)]
    if not run.diagnosis.overfits:
        return [export_best(run)]
    return [export_best(run), *_against_overfitting(run)]


def _against_overfitting(run: RunRecord) -> list[NextStep]:
    if run.diagnosis and run.diagnosis.regularized:
        return [
            NextStep(
                "Compare stronger settings of the regularizer: copy this config, and put in your "
                "model, text and `strengths`.",
                "lit-entrodrop compare --config configs/comparisons/entrodrop.yaml",
            )
        ]
    recipe = "--config configs/recipes/scarce.yaml"
    return [
        train_again(run, "Train again with the recipe for scarce text.", "scarce", recipe),
        NextStep(
            "Then test whether it helps.",
            f"lit-entrodrop compare --runs {run.location} {run.location}-scarce",
        ),
    ]
