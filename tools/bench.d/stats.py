"""Medians, paired ratios and whether a bar was met. Works on the plain values of a record."""
import statistics

MEASURES = ("wall", "user", "sys", "cpu", "rss", "written", "held", "size", "services",
            "encode_share")


def medians(samples):
    """{measure: median} over the samples that have it."""
    found = {}
    for measure in MEASURES:
        values = [sample[measure] for sample in samples if sample.get(measure) is not None]
        if values:
            found[measure] = statistics.median(values)
    return found


def by_round(samples, measure):
    return {sample["round"]: sample[measure] for sample in samples
            if sample.get(measure) is not None}


def paired(ours, theirs, measure):
    """The ratios ours / theirs of the rounds in which both were measured."""
    mine, other = by_round(ours, measure), by_round(theirs, measure)
    return [mine[number] / other[number] for number in sorted(mine)
            if number in other and other[number] > 0]


def verdict(bar, value):
    return value >= bar["limit"] if bar["least"] else value <= bar["limit"]


def judge(bar, ours, ways, decide=True):
    """The bar with its figures: `ours`, `theirs`, `ratio` and `met` (None: not judged, and `why`).

    `ways` are all that was measured in the sitting, floors included, by name. A rival that is
    absent, failed or made something else is never compared with.
    """
    result = dict(bar, met=None)
    mine = ways.get(ours, {"status": "absent", "why": "not run"})
    if mine["status"] != "ok":
        return result | {"why": f"ours: {mine['status']}: {mine.get('why', '')}".rstrip(": ")}
    measure = bar["measure"]
    if measure == "held over size":
        ratios = [sample["held"] / sample["size"] for sample in mine["samples"]]
        result |= {"ours": mine["medians"]["held"], "theirs": mine["medians"]["size"],
                   "rival": "its own image", "ratio": max(ratios)}
        value = max(ratios)
    elif not bar["against"]:
        if measure not in mine["medians"]:
            return result | {"why": f"{measure} was not measured"}
        value = mine["medians"][measure]
        if measure in ("rss", "written", "held"):
            # A promise about memory or disk holds in every run, not in half of them.
            value = max(sample[measure] for sample in mine["samples"])
        result["ours"] = value
    else:
        fit = [name for name in bar["against"]
               if ways.get(name, {}).get("status") == "ok" and measure in ways[name]["medians"]]
        if not fit:
            states = (f"{name}: {ways.get(name, {}).get('status', 'absent')}"
                      f" ({ways.get(name, {}).get('why', 'not run')})" for name in bar["against"])
            return result | {"why": "; ".join(states)}
        best = min(fit, key=lambda name: ways[name]["medians"][measure])
        ratios = paired(mine["samples"], ways[best]["samples"], measure)
        if not ratios:
            return result | {"why": f"no round has both {measure} of ours and of {best}"}
        value = statistics.median(ratios)
        result |= {"ours": mine["medians"][measure], "theirs": ways[best]["medians"][measure],
                   "rival": best, "ratio": value, "ratio_least": min(ratios),
                   "ratio_most": max(ratios)}
    if not decide:
        return result | {"why": "a quick run judges nothing"}
    return result | {"met": verdict(bar, value)}


def order(names, number):
    """The order of a round: forward, backward, forward ... so that a drift hits all alike."""
    return list(names) if number % 2 == 0 else list(reversed(names))
