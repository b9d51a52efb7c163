"""`ppcls calibrate`: from an exported folder and labelled images to what the folder then knows."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ppcls.calibrate.costs import Costs, read_costs
from ppcls.calibrate.fit import Answers, Fitted, Wish, fit
from ppcls.data.samples import Dataset
from ppcls.inference import calibration, exported_model, manifest
from ppcls.inference.calibration import COSTS, Calibration, MadeFrom, digest_of, to_file
from ppcls.inference.predictor import AUTO, MANY_CLASSES, Asked, Predictor, batched
from ppcls.inference.quantize import open_labelled
from ppcls.report.figures import calibration as reliability
from ppcls.report.plots import BLUE, GREY, RED, new_figure, png
from ppcls.utils.errors import DataError, UserError
from ppcls.utils.files import read_text, staged_folder, write_text
from ppcls.utils.log import Progress, say
from ppcls.utils.text import at_most, plural

SEVERAL = 12  # sizes of sets that have a bar of their own
ASSUMPTION = (
    "photos to come are drawn as these were (exchangeable): the same kinds of things, cameras and "
    "shares of classes, and the network has not learnt from them"
)


def calibrate(
    folder: Path,
    data: Path,
    wish: Wish,
    on_error: str = "stop",
    engine: str = AUTO,
    costs: Path | None = None,
) -> Calibration:
    """Calibrate an exported folder on labelled images, and write what was found into it.

    Args:
        data: images that the network has not learnt from: a folder per class, a list, or shards.
        on_error: at an image that is missing or broken: stop, or skip to leave it out.
        engine: what runs the network, as of `Predictor`.
        costs: a CSV file of what decisions cost (`read_costs`), by which images are decided then.

    Raises:
        UserError: no exported folder in which one class wins, images of other classes or too few,
            costs that are none, or the folder cannot be written; it is as it was then.
    """
    skip = on_error == "skip"
    with opened(folder, engine) as predictor:
        table = read_costs(costs, predictor.manifest.labels) if costs else None
        samples = open_labelled("--data", data, predictor.manifest, predictor.engine, skip)
        return calibrated(predictor, samples, str(data), wish, skip, table)


def calibrate_on(
    folder: Path, samples: Dataset, data: str, wish: Wish, engine: str = AUTO
) -> Calibration:
    """As `calibrate`, on images whose labels are numbered as the network's classes are.

    Those that cannot be read are left out.
    """
    with opened(folder, engine) as predictor:
        return calibrated(predictor, samples, data, wish, skip=True)


def opened(folder: Path, engine: str = AUTO) -> Predictor:
    """The network of an exported folder, which gives the answers it gives without calibration."""
    exported_model.refuse_others(folder)
    about = manifest.read(folder, calibrated=False)
    if about.task != "classify" or about.default is not None:
        what = (
            "gives an image several labels" if about.default is None else "decides by a threshold"
        )
        raise UserError(
            f"{folder}: the network {what}; ppcls calibrate is for networks whose likeliest class "
            "is the answer (ppcls export --thresholds has aims for each class, cost=1:5 among them)"
        )
    return Predictor(folder, engine=engine, calibrated=False)


def calibrated(
    predictor: Predictor,
    samples: Dataset,
    data: str,
    wish: Wish,
    skip: bool,
    costs: Costs | None = None,
) -> Calibration:
    """Predict, fit, write, and say what was found."""
    folder = predictor.folder.path
    answers, samples = ask(predictor, samples, skip)
    made_from = MadeFrom(
        images=len(answers),
        classes=answers.classes,
        data=data,
        digest=samples.digest(),
        network={path.name: digest_of(path) for path in predictor.folder.files},
        assumption=ASSUMPTION,
    )
    found = fit(answers, wish, made_from, costs)
    before = manifest.calibration_in(read_text(folder / manifest.FILE))
    made = write(folder, found, answers)
    if before.get(COSTS) and not costs:
        say(f"note: {folder}: decides by costs no more; --costs says them anew")
    say(*lines(made, folder, predictor.manifest.labels))
    return made


def ask(predictor: Predictor, samples: Dataset, skip: bool) -> tuple[Answers, Dataset]:
    """The network's answers to labelled images, without those that cannot be read."""
    size = predictor.batch_size
    features = predictor.manifest.features > 0
    batches = batched(list(samples.paths), size, False)
    asked = Asked(MANY_CLASSES, skip, features, looks=True)
    stream = predictor.answer(batches, -(-len(samples) // size), asked)
    rows, pooled, looks, places = [], [], [], []
    try:
        for place, found in enumerate(Progress(stream, "predicting", len(samples))):
            if found.error:
                continue
            row = np.empty(len(found.classes), np.float32)
            row[found.classes] = found.scores
            rows.append(row)
            pooled.append(found.features)
            looks.append(found.looks)
            places.append(place)
    except DataError as error:
        raise UserError(f"{error} (--on-error skip goes on without it)") from None
    if len(places) < len(samples):
        lost = len(samples) - len(places)
        say(f"note: {samples.source}: {plural(lost, 'image')} cannot be read and are left out")
    if not places:
        raise UserError(f"{samples.source}: no image in it can be read")
    kept = samples.subset(places)
    found = np.stack(pooled) if features else None
    return Answers(np.stack(rows), kept.labels, found, np.stack(looks)), kept


def write(folder: Path, found: Fitted, answers: Answers) -> Calibration:
    """Put it into the folder, whole or not at all; all else there stays."""
    data, digest = to_file(found.values | found.sketch.arrays())
    made = replace(found.calibration, arrays=digest)
    text = manifest.with_calibration(read_text(folder / manifest.FILE), made)
    own = (manifest.FILE, calibration.FILE, calibration.PICTURE)
    picture = draw(found, answers)
    with staged_folder(folder, manifest.FILE, own) as temporary:
        (temporary / calibration.FILE).write_bytes(data)
        (temporary / calibration.PICTURE).write_bytes(picture)
        write_text(temporary / manifest.FILE, text)
    return made


def lines(made: Calibration, folder: Path, names: tuple[str, ...]) -> list[str]:
    """What the screen says."""
    expected = made.expected
    percent = {name: f"{100 * value:.1f} %" for name, value in expected.items()}
    before, after = percent["calibration_error"], percent["calibration_error_after"]
    if made.temperature == 1:
        scores = f"left as they are (error {before}; no temperature made it better)"
    else:
        scores = f"temperature {made.temperature:.3f}, error {before} before, {after} after"
    sets = made.sets
    kind = f"{sets.method.upper()}{', for each class' if sets.per_class else ''}"
    source = made.made_from
    unknown = made.unknown
    found = [
        f"{folder}: calibrated on {plural(source.images, 'image')} of {source.data}",
        f"  scores    {scores}",
        f"  sets      {kind}, for a coverage of {100 * sets.coverage:g} %: held "
        f"{percent['coverage']}, {expected['classes_in_set']:.2f} classes on average",
        f"  unknown   by {unknown.measure}, {100 * unknown.false_alarms:g} % false alarms",
        f"  of photos like these: sure {percent['sure']} ({percent['right_where_sure']} of them "
        f"right), unsure {percent['unsure']}, unknown {percent['unknown']}",
        f"  this holds where {source.assumption}",
    ]
    if made.costs:
        price, usual = expected["cost"], expected["cost_of_likeliest"]
        found.insert(
            -1,
            f"  costs     of {made.costs}: {price:g} an image by decisions, {usual:g} by the "
            f"likeliest class (difference ± {expected['cost_error']:.2g}), "
            f"{percent['decided_otherwise']} decided otherwise",
        )
        if price > usual:
            found.append("note: decisions by costs cost more here than the likeliest class does")
    open_ended = [place for place, limit in enumerate(sets.thresholds) if limit == float("inf")]
    if open_ended:
        named = [names[place] if names else str(place) for place in open_ended]
        found.append(f"note: too few images of {at_most(named)}: in all sets")
    return found


# --------------------------------------------------------------------------
# The picture


def draw(found: Fitted, answers: Answers) -> bytes:
    """PNG: accuracy against confidence before and after, and how large the sets are."""
    figure = new_figure((11, 5))
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    kinds = [("as the network gives it", answers.probabilities, GREY)]
    if found.calibration.temperature != 1:
        name = f"with temperature {found.calibration.temperature:.2f}"
        kinds.append((name, found.tempered, BLUE))
    for name, probabilities, color in kinds:
        right_ones = probabilities.argmax(axis=1) == answers.labels
        error, bins = reliability(probabilities.max(axis=1), right_ones)
        points = [one for one in bins if one.photos]
        left.plot(
            [one.confidence for one in points],
            [one.accuracy for one in points],
            "o-",
            color=color,
            label=f"{name}: error {100 * error:.1f} %",
        )
    left.set(
        xlabel="score of the likeliest class", ylabel="share that is right", xlim=(0, 1.02),
        ylim=(0, 1.02), title="Scores",
    )  # fmt: skip
    left.legend(loc="upper left", fontsize=9)
    sizes = np.bincount(np.minimum(found.sizes, SEVERAL), minlength=3)
    places = np.arange(len(sizes))
    colors = [RED if size == 0 else BLUE if size == 1 else GREY for size in places]
    right.bar(places, 100 * sizes / sizes.sum(), color=colors)
    ticks = [str(size) if size < SEVERAL else f"{SEVERAL}+" for size in places]
    right.set_xticks(places, ticks)
    sets = found.calibration.sets
    right.set(
        xlabel="classes in the set", ylabel="photos, %",
        title=f"Sets for a coverage of {100 * sets.coverage:g} % "
        f"(held {100 * found.calibration.expected['coverage']:.1f} %)",
    )  # fmt: skip
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
    return png(figure)
