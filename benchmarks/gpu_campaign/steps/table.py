"""All steps and their cases, in order of worth, with their expected durations."""

from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.gpu_campaign.cases import Case, Step
from benchmarks.gpu_campaign.sizes import Sizes
from benchmarks.gpu_campaign.steps.evidence import (
    CONFIG,
    changes_for,
    prepare_evidence,
    train_arm,
)
from benchmarks.gpu_campaign.steps.gpu_tests import run_tests
from benchmarks.gpu_campaign.steps.head_alone import measure_head
from benchmarks.gpu_campaign.steps.large_model import measure_large
from benchmarks.gpu_campaign.steps.other_trainers import measure_peers
from benchmarks.gpu_campaign.steps.stop_and_resume import measure_qlora, measure_resume
from benchmarks.gpu_campaign.steps.training_step import measure_pair, measure_variant
from benchmarks.gpu_campaign.verdict import judge_rows
from benchmarks.live_fit import TOKENIZER as BUNDLED
from lit_entrodrop.commands.compare.planning.settings import read_settings

# Share of the time of each step.
SHARES = {
    "a tests": 0.10,
    "b head": 0.08,
    "c step": 0.22,
    "d trainers": 0.12,
    "e data": 0.06,
    "e arms": 0.25,
    "e verdict": 0.01,
    "f 8B": 0.10,
    "g resume": 0.06,
}


def steps_of(
    sizes: Sizes, source: str, corpus: Path, heldout: Path, work: Path, rows: Path
) -> list[Step]:
    """Return all steps.

    Args:
        sizes: Sizes of the measurements.
        source: Source of the pretrained model of the evidence.
        corpus: Documents to train and validate on.
        heldout: Other documents.
        work: Folder for models, caches and runs.
        rows: File of the results.
    """
    settings = read_settings(CONFIG)
    arms = [arm.name for arm in settings.arms]
    model, runs = work / "model", work / "runs"
    device = {"device": sizes.device}
    changes = [
        changes_for(sizes.device, sizes.precision, str(model), corpus, heldout, work / "cache"),
        sizes.evidence,
    ]
    evidence = {"changes": changes, "folder": runs}
    short = changes_for(sizes.device, sizes.precision, BUNDLED, corpus, heldout, work / "cache")
    del short["trainer"]["enable_checkpointing"]
    short["data"] |= {"block_size": 64, "batch_size": 4}
    cases = {
        "a tests": [Case("CUDA", run_tests, sizes.tests, 45)],
        "b head": _heads(sizes),
        "c step": _training_steps(sizes),
        "d trainers": [
            Case(", ".join(arms), measure_peers, {"arms": arms, **sizes.peers, **device}, 35)
            for arms in (["hf_liger", "trl_sft"], ["hf_trainer"])
        ],
        "e data": [
            Case(
                "model and tokens",
                prepare_evidence,
                {"source": source, "model": model, **evidence},
                30,
            )
        ],
        "e arms": [
            Case(f"{arm}, seed {seed}", train_arm, {"arm": arm, "seed": seed, **evidence}, 35)
            for seed, arm in product(settings.seeds[: sizes.seeds], arms)
        ],
        "e verdict": [
            Case("differences", judge_rows, {"rows": rows, "contrasts": settings.contrasts}, 5)
        ],
        "f 8B": [Case("against plan", measure_large, {**sizes.large, **device}, 40)],
        "g resume": [
            Case("SIGTERM and export", measure_resume, {"changes": short, **device}, 30),
            Case("QLoRA, paged 8-bit AdamW", measure_qlora, {"changes": short, **device}, 40),
        ],
    }
    parallel = {"e arms": sizes.parallel}
    return [
        Step(name, cases[name], share, parallel.get(name, 1), is_needed=name == "e data")
        for name, share in SHARES.items()
    ]


def _heads(sizes: Sizes) -> list[Case]:
    options = {**sizes.head, "rounds": sizes.rounds, "device": sizes.device}
    vocabularies = options.pop("vocab_sizes")
    return [
        Case(f"V={size}", measure_head, {"vocab_size": size, **options}, 20)
        for size in vocabularies
    ]


def _training_steps(sizes: Sizes) -> list[Case]:
    """Return pairs of plain and EntroDrop first, then variants of EntroDrop."""
    options: dict[str, Any] = {
        "tokens_per_step": sizes.tokens_per_step,
        "rounds": sizes.rounds,
        "device": sizes.device,
        "precision": sizes.precision,
    }
    shapes = [
        (f"{model}, {length}", {"model": model, "length": length, **options})
        for length, model in product(sizes.lengths, sizes.models)
    ]
    cases = [Case(f"pair, {name}", measure_pair, each, 20) for name, each in shapes]
    for recomputed, compiled in product((False, True), (False, True)):
        if compiled and not sizes.compiled:
            continue
        kind = {"compiled": compiled, "recomputed": recomputed}
        for name, each in shapes:
            full = ", ".join([name, *(word for word, is_on in kind.items() if is_on)])
            expected = 40.0 if compiled else 12.0
            cases.append(Case(full, measure_variant, {**each, **kind}, expected))
    return cases
