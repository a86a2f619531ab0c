"""Figure of forgetting and verbatim memorization over epochs."""

from pathlib import Path

from matplotlib.figure import Figure

from lit_entrodrop.commands.report.records.run_record import RunRecord
from lit_entrodrop.commands.report.rendering import plotting


def forgetting_curves(run: RunRecord, folder: Path, name: str) -> plotting.FigureHtml | None:
    """Draw forgetting and verbatim memorization, if either was measured."""
    forgotten = run.curve("forgetting", "loss")
    memorized = {
        "training text": (run.curve("clean_train", "memorized"), plotting.CLEAN),
        "validation text": (run.curve("val", "memorized"), plotting.VALIDATION),
    }
    memorized = {label: pair for label, pair in memorized.items() if len(pair[0])}
    if not len(forgotten) and not memorized:
        return None

    def draw(canvas: plotting.Canvas) -> Figure:
        figure, panels = canvas.panels(bool(len(forgotten)) + bool(memorized), 2.4)
        if len(forgotten):
            panels[0].plot(forgotten.index, forgotten, color=plotting.INK)
            panels[0].set(title="Loss on general text", ylabel="loss (nats per token)")
        if memorized:
            for line, color in memorized.values():
                panels[-1].plot(line.index, 100 * line, color=color)
            panels[-1].set(title="Documents memorized verbatim", ylabel="% of documents")
            panels[-1].set_ylim(0, max(1.0, 108 * max(c.max() for c, _ in memorized.values())))
        for panel in panels:
            panel.set_xlabel("epoch")
            plotting.whole_epochs(panel, run.evaluations.index[-1])
        if memorized:
            ends = [(100 * c.iloc[-1], label, color) for label, (c, color) in memorized.items()]
            plotting.label_ends(panels[-1], ends, run.evaluations.index[-1])
        return figure

    parts = [
        f"{label}: {c.iloc[-1]:.1%} memorized at the end" for label, (c, _) in memorized.items()
    ]
    if len(forgotten):
        parts.append(
            f"loss on general text from {forgotten.iloc[0]:.3f} to {forgotten.iloc[-1]:.3f}"
        )
    caption = [
        "A rising loss on general text is forgetting." if len(forgotten) else "",
        "A share of training text above that of validation text is memorization."
        if memorized
        else "",
    ]
    return plotting.render_figure(
        folder, name, draw, f"Line charts. {'; '.join(parts)}.", " ".join(caption).strip()
    )
