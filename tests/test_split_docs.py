"""The commands on splits in docs/data.md run as they stand there."""

from pathlib import Path

import pages
import pytest
from photos import write_photo

from ppcls.cli import main

COMMANDS = pages.commands(pages.section(pages.text_of("docs/data.md"), "Splits"))
RECIPE = """
model: {name: EfficientNetLite0}
data: {train: photos/train, eval: photos/val, workers: 0}
preprocess: {resize: 36, crop: 32}
train: {epochs: 1, batch_size: 8, schedule: {lr: 0.001}}
output: runs/own_photos
"""


def furnish():
    Path("RECIPE").write_text(RECIPE)
    rows = []
    for label, name in enumerate(("ants", "bees")):
        for i in range(10):
            path = Path("photos/train") / name / f"patient{label}{i // 2}_{i}.png"
            write_photo(path, 20 * label + i)
            rows.append(f"{path},{name},{label}{i // 2}\n")
    for name, own in (("photos", rows), ("train", rows[:6] + rows[10:16])):
        Path(f"{name}.csv").write_text("".join(["path,label,patient\n", *own]))
    Path("eval.csv").write_text("".join(["path,label,patient\n", *rows[6:10], *rows[16:]]))


@pytest.mark.slow
def test_the_commands_on_splits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    furnish()
    assert len(COMMANDS) == 7
    said = ""
    for line in COMMANDS:
        words = pages.arguments(line)
        if words[0] == "train" and "--folds" not in words:
            words = [*words, "--overwrite"]
        code = main(words)
        said += capsys.readouterr().out
        assert code == 0, line
    assert said.count("held out for evaluation: 2 of 10 groups, 4 of 20 images (20.0%)") == 2
    assert "fold 5 of 5: done before" in said
    assert "photos/train: 20 images in 5 folds of 4" in said
    assert said.count("no findings") == 2
