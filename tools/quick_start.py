"""Train, evaluate, export and predict on digits, by the commands a user would type."""

import argparse
import subprocess
import sys
from pathlib import Path

STEPS = (
    "tools/train.py -c configs/quick_start/digits.yaml --overwrite",
    "tools/eval.py -c configs/quick_start/digits.yaml",
    "tools/export.py -c configs/quick_start/digits.yaml",
    "deploy/predict.py --model-dir exported/digits data/digits/eval/7 --topk 2 "
    "--save runs/digits/predictions.csv",
)


def main() -> int:
    steps = "\n".join(f"  python {step}" for step in STEPS)
    about = f"{__doc__}\n\nThese are run in turn:\n\n{steps}"
    how = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=about, formatter_class=how).parse_args()
    for step in STEPS:
        print(f"\n$ python {step}", flush=True)
        command = [sys.executable, *step.split()]
        code = subprocess.run(command, cwd=Path(__file__).parent.parent, check=False).returncode
        if code:
            return code
    print("\nNext: your own photos, one folder per class: ppcls train photos/ (README.md).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
