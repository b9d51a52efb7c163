"""A run's records as a picture."""

import io
from pathlib import Path

from ppcls.log import read_records
from ppcls.utils.files import write_bytes


def draw(records_path: Path, picture: Path) -> None:
    """Loss, accuracy and learning rate over the steps, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    records = read_records(records_path)
    train = [r for r in records if r["event"] == "train"]
    evals = [r for r in records if r["event"] == "eval"]
    figure, (loss, accuracy, rate) = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
    best = "map" if any("map" in r for r in evals) else "top1"
    watched = "label_accuracy" if any("label_accuracy" in r for r in train) else "top1"
    words = {"map": "mAP", "top1": "top-1", "label_accuracy": "labels right"}
    scores = [(f"training {words[watched]}", train, watched), (words[best], evals, best)]
    panels = [
        (loss, "loss", [("training", train, "loss"), ("evaluation", evals, "loss")]),
        (accuracy, "accuracy", scores),
        (rate, "learning rate", [("learning rate", train, "lr")]),
    ]
    if any("top5" in r for r in evals):
        panels[1][2].append(("top-5", evals, "top5"))
    for axes, title, lines in panels:
        for label, points, key in lines:
            marker = "o" if points is evals else None
            known = [r for r in points if key in r]  # not where no photo could be read
            axes.plot(
                [r["step"] for r in known],
                [r[key] for r in known],
                marker=marker,
                markersize=3,
                label=label,
            )
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    plt.close(figure)
    write_bytes(picture, drawn.getvalue(), fix="the run's checkpoints are whole")
