"""What a window of photos showed, in words."""

from collections.abc import Sequence

from ppcls.drift.permutation import Move, Shift, Verdict
from ppcls.drift.sketch import Of
from ppcls.inference.looks import LEAST
from ppcls.utils.text import plural, visible

NAMED = 3  # classes that a line names, of those that rose and of those that fell
MANY = 100  # times as much as nothing, nearly
CLEAR = 3.0  # deviations from which on the share of a class, or a look, is said to have moved
# What is said of photos that have more of a look, or less: so many times it, or by so many levels.
TIMES = {"brightness": "as bright", "contrast": "the contrast", "sharpness": "as sharp"}
COLOURS = {"warmth": ("redder", "bluer"), "tint": ("greener", "less green")}


def words(verdict: Verdict, of: Of, names: Sequence[str]) -> str:
    """One line about a window.

    Args:
        of: what a sketch is of.
        names: of the classes, () where they are unknown.
    """
    rate = f"alarms are for {verdict.false_alarms:g}"
    if not verdict.alarm:
        return f"no drift is seen (p {verdict.p:.3g}; {rate})"
    moved = [one for one in verdict.parts if one.p <= verdict.false_alarms] or verdict.parts[:1]
    said = "; ".join(part_words(one.name, verdict, of, names) for one in moved)
    return f"DRIFT (p {verdict.p:.3g}; {rate}): {said}"


def part_words(name: str, verdict: Verdict, of: Of, names: Sequence[str]) -> str:
    times = f"{verdict.part(name).distance:.1f} times as far apart as chance makes them"
    if name == "scores":
        before, after = verdict.scores
        return f"scores, {times}: {before:.3f} on average before, {after:.3f} now"
    named = []
    if name == "classes":
        named = [*moved(verdict.shifts, names, 1), *moved(verdict.shifts, names, -1)]
    if name == "looks":
        named = look_words(verdict.looks)
    what = name
    if name == "features" and of != "features":
        what = "all scores of a photo"
    why = ""
    if verdict.by_classes.get(name, 0) >= 0.5:
        why = f", {100 * verdict.by_classes[name]:.0f} % of it because the classes' shares moved"
    return f"{what}, {times}{why}" + (f": {', '.join(named)}" if named else "")


def look_words(looks: Sequence[Move]) -> list[str]:
    """How photos look now, as people say it: what moved most clearly."""
    said = []
    for one in looks:
        by = one.after - one.before
        if one.name in COLOURS:
            mean = f"{COLOURS[one.name][by < 0]} by {abs(by):.1f} of 255 levels"
        else:
            times = (one.after + LEAST) / (one.before + LEAST)  # of what may be 0
            mean = f"{2**by if one.name == 'sharpness' else times:.2f} times {TIMES[one.name]}"
        spread = one.spread_after / max(one.spread_before, 1e-9)
        often = f"{spread:.2f} times as much" if spread < MANY else "and did not"
        said += [
            (abs(one.deviations), mean),
            (abs(one.spread_deviations), f"{one.name} varies {often}"),
        ]
    said.sort(key=lambda one: -one[0])
    return [text for deviations, text in said[:NAMED] if deviations >= CLEAR]


def moved(shifts: Sequence[Shift], names: Sequence[str], sign: int) -> list[str]:
    """The classes that rose (sign 1) or fell (-1), by how much."""
    clear = [one for one in shifts if sign * one.deviations >= CLEAR]
    verb = "rose" if sign > 0 else "fell"
    said = [
        f"{visible(class_name(names, one.number))} {verb} from {100 * one.before:.1f} to "
        f"{100 * one.after:.1f} %"
        for one in clear[:NAMED]
    ]
    more = len(clear) - NAMED
    return said + ([f"and {plural(more, 'more class')} {verb}"] if more > 0 else [])


def class_name(names: Sequence[str], number: int) -> str:
    """A class's name, its number where there is none."""
    return names[number] if names else str(number)
