"""Keys that a recipe has no use for: why, and at which values nothing need be said.

Keys are shell patterns of dotted names. What no line matches and nothing has asked for is unknown.
"""

from fnmatch import fnmatchcase
from typing import Any

from ppcls.config.tree import At, dotted_name
from ppcls.paddleclas_config.page import Page, Rank, children

Silent = tuple[Any, ...] | None  # values of which nothing is said
ANY: Silent = None
OFF: Silent = (None, False, 0, "")
EXPORT = "`ppcls export` has its own options"

# Pattern → the silent values, and what is said of others.
EXPLAINED: dict[str, tuple[Silent, str]] = {
    "Global.checkpoints": (
        OFF,
        "a run goes on with --resume, after one of ppcls; as weights: -o model.weights=FILE",
    ),
    "Global.use_visualdl": ((), "a run always writes VisualDL scalars"),
    "Global.save_inference_dir": ((), "`ppcls export --output` names the folder"),
    "Global.image_channel": (ANY, ""),
    "Global.use_gpu": (OFF, "device: auto takes a GPU where there is one"),
    "Global.use_dali": (OFF, "photos are read on the CPU"),
    "Global.to_static": (OFF, "networks are trained as they are, not compiled"),
    "Global.eval_mode": (("classification", None), "evaluation is by top-1 and top-5"),
    "Global.start_eval_epoch": ((None, 0, 1), "evaluation begins with the first epoch"),
    "Global.train_mode": ((None, "efficientnetv2"), "another way of training: not carried over"),
    "Global.iter_per_epoch": ((None,), "an epoch is all photos once"),
    "Global.log_ranks": ((None, "0", 0), "one process writes the log"),
    "Global.print_mem_info": ((None, True, False), ""),
    "Global.infer_config_path": ((None,), EXPORT),
    "Global.export_for_fd": ((), "every export holds inference.yml"),
    "Global.uniform_output_enabled": ((), "run.jsonl holds a run's figures"),
    "Global.pdx_model_name": ((), "`ppcls export --paddlex-name`"),
    "Global.hpi_config_path": ((), EXPORT),
    "Global.amp": (OFF, "train.precision: fp16 turns it on"),
    "AMP.scale_loss": ((), "the loss scale starts at 65536 and finds its own value"),
    "AMP.use_dynamic_loss_scaling": ((True,), "the loss scale is always dynamic"),
    "AMP.use_fp16_test": ((None, False), "evaluation is in float32"),
    "AMP.use_promote": ((None, False), "Paddle's own choice"),
    "*.use_sync_bn": (OFF, "each card would have its own statistics; there is one process"),
    "*.data_format": ((None, "NCHW"), "the layout in memory is Paddle's own, NCHW"),
    "*.use_ssld": (OFF, "says which weights; none are asked for"),
    "*.return_patterns": ((None,), "outputs of inner layers serve distillation"),
    "*.return_stages": ((None,), "outputs of inner layers serve distillation"),
    "*.infer_add_softmax": ((None, True), "`ppcls export --logits` leaves softmax out"),
    "Optimizer*.multi_precision": ((None, True), "weights stay in float32 in any case"),
    "Optimizer*.lr.by_epoch": ((True, False, None), ""),
    "Optimizer*.lr.step_each_epoch": ((), "counted from the data"),
    "Optimizer*.lr.last_epoch": ((None, -1), "a run goes on with --resume"),
    "*.layerwise_decay": (
        (),
        "not carried over: one learning rate for all layers (train.lr_scale)",
    ),
    "Loss.Train.*.reduction": ((None, "mean"), "the mean over photos"),
    "Loss.Train.*.size_sum": (OFF, "the mean over classes, a sum there: so many times as large"),
    "Loss.Train.*.weight_ratio": (OFF, "not carried over: classes count alike"),
    "Loss.Train.*.sum_across_class_dim": (OFF, "the sum over classes, the mean over photos"),
    "DataLoader.*.loader.num_workers": (ANY, ""),
    "DataLoader.*.loader.use_shared_memory": (ANY, ""),
    "DataLoader.*.dataset.image_root": (ANY, ""),
    "DataLoader.UnLabelTrain": ((), "photos without labels: not carried over"),
    "UnLabelLoss": ((), "photos without labels: not carried over"),
    "SSL": ((), "learning without labels: not carried over"),
    "Slim": ((), "not carried over: `ppcls quantize` makes INT8 of an export; nothing prunes"),
    "MLDecoder": ((), "not known here: not carried over"),
    "Infer.infer_imgs": (ANY, ""),
    "Infer.infer_list": (ANY, ""),
    "Infer.batch_size": (ANY, ""),
    "Infer.save_dir": ((None,), "`ppcls predict --save FILE`"),
    "Infer.PostProcess.name": (
        (None, "Topk", "DistillationPostProcess"),
        "predictions are the best classes",
    ),
    "Infer.PostProcess.func": ((None, "Topk"), "predictions are the best classes"),
    "Infer.PostProcess.topk": ((1, 5), "`ppcls predict --topk`"),
    "Infer.PostProcess.delimiter": (ANY, ""),
    "Infer.PostProcess.main_indicator": (("Topk",), "predictions are the best classes"),
}

# Of these, what every config has, and what makes a run's numbers others than PaddleClas's.
ON_EVERY_CONFIG = ("Global.use_visualdl", "Global.save_inference_dir")
NUMBERS = (
    "Global.train_mode",
    "Global.iter_per_epoch",
    "*.use_sync_bn",
    "*.layerwise_decay",
    "Loss.Train.*",
    "DataLoader.UnLabelTrain",
    "UnLabelLoss",
    "SSL",
    "MLDecoder",
)


def explain(page: Page) -> None:
    """Say something of all that nothing has asked for."""
    for at, value in list(page.unused()):
        explain_one(page, at, value)


def explain_one(page: Page, at: At, value: Any) -> None:
    name = dotted_name(at)
    patterns = [pattern for pattern in EXPLAINED if fnmatchcase(name, pattern)]
    if patterns:
        silent, text = EXPLAINED[patterns[0]]
        if silent is not None and value not in silent:
            page.remark(at, text, rank(name))
        return
    within = any(pattern.startswith(f"{name}.") for pattern in EXPLAINED)
    inner = children(value)
    if inner and (within or name.count(".") or name in ("Global", "AMP", "Loss", "Infer")):
        for key, child in inner:
            explain_one(page, (*at, key), child)
        return
    trained = at[0] in ("Arch", "Loss", "Optimizer")
    page.remark(at, "not known here: not carried over", Rank.NUMBERS if trained else Rank.MEANING)
    if trained:
        page.lost.append(name)


def rank(name: str) -> Rank:
    """How much it matters that a key has no place here."""
    if name in ON_EVERY_CONFIG:
        return Rank.ALWAYS
    return Rank.NUMBERS if any(fnmatchcase(name, p) for p in NUMBERS) else Rank.MEANING
