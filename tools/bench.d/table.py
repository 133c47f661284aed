"""The tables made of records, and the part of the README that holds them."""
import pathlib
import re

import record as records
from machine import REPO
from model import UNITS, BenchError
from workload import GIB, MIB

README = REPO / "README.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
LINK = re.compile(r"\]\((benches/record/[^)]+\.json)\)")


def number(value, digits=3):
    """Three digits, without an exponent: 0.0123, 1.23, 12.3, 123, 12345."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    whole = len(str(int(abs(value))))
    places = digits - whole if abs(value) >= 1 else digits
    return f"{value:.{max(0, places)}f}"


def amount(measure, value):
    if value is None:
        return ""
    unit = UNITS[measure]
    scaled = value / MIB if unit == "MiB" else value
    return f"{number(scaled)} {unit}".strip()


def limit(bar):
    sign = "≥" if bar["least"] else "≤"
    if bar["against"] or not UNITS[bar["measure"]]:
        places = 2 if round(bar["limit"], 2) == bar["limit"] else 3
        return f"{sign} {bar['limit']:.{places}f} ×"
    return f"{sign} {amount(bar['measure'], bar['limit'])}"


def met(bar):
    return {True: "met", False: "**missed**", None: "not judged"}[bar["met"]]


def bars(record):
    """One line for each bar."""
    lines = ["| work | measure | snapcow | rival | ratio | bar | |", "|---|---|---|---|---|---|---|"]
    for row in record["rows"]:
        ways = record["sittings"].get(row["sitting"], {"ways": {}})["ways"]
        work = row["work"]
        for bar in row["bars"]:
            rival, ratio = "", number(bar.get("ratio"))
            if "rival" in bar:
                title = ways.get(bar["rival"], {}).get("title", bar["rival"])
                rival = f"{amount(bar['measure'], bar['theirs'])}, {title}" \
                    if bar["measure"] != "held over size" else f"{amount('size', bar['theirs'])}, {title}"
            ours = amount("held" if bar["measure"] == "held over size" else bar["measure"],
                          bar.get("ours"))
            if bar["measure"] in ("growth", "encode_share"):
                ratio, ours = ours, ""
            verdict = met(bar) + (f": {bar['why']}" if "why" in bar else "")
            lines.append(line(work, NAMES.get(bar["measure"], bar["measure"]), ours, rival, ratio,
                              limit(bar), verdict))
            work = ""
    return lines


NAMES = {"cpu": "CPU", "rss": "peak memory", "written": "written to disk", "held": "disk held",
         "held over size": "disk held, of the image", "encode_share": "encode throughput",
         "growth": "memory beside the map, of that at 1 GiB"}


def ways(record):
    """One line for each way that was measured or should have been."""
    lines = ["| sitting | way | wall, s | CPU, s | peak memory, MiB | written, MiB | disk held, MiB "
             "| image, MiB |", "|---|---|---|---|---|---|---|---|"]
    for key in dict.fromkeys(row["sitting"] for row in record["rows"]):
        if key not in record["sittings"]:
            continue
        sitting = record["sittings"][key]
        name = key[1]
        for way in sitting["ways"].values():
            if way["status"] != "ok":
                lines.append(line(name, way["title"], f"{way['status']}: {way['why']}", *[""] * 5))
            else:
                found = way["medians"]
                mib = [number(found[one] / MIB) if one in found else ""
                       for one in ("rss", "written", "held", "size")]
                if "rss" in found and found["rss"] <= sitting.get("rss_floor", 0):
                    mib[0] = f"≤ {mib[0]}"
                lines.append(line(name, way["title"], number(found.get("wall")),
                                  number(found.get("cpu")), *mib))
            name = ""
    return lines


def scale(record):
    lines = ["| virtual | full | threads | wall, s | CPU, s | peak memory, MiB | map, MiB | metadata, MiB "
             "| image, MiB |", "|---|---|---|---|---|---|---|---|---|"]
    for point in record["scale"]:
        size = f"{point['virtual_bytes'] / GIB:.0f} GiB"
        if point["status"] != "ok":
            lines.append(line(size, "", "", f"{point['status']}: {point['why']}", *[""] * 5))
            continue
        found = point["medians"]
        mib = [number(value / MIB) for value in (found["rss"], point["map_bytes"],
                                                 point["metadata_bytes"], point["image_bytes"])]
        lines.append(line(size, f"{point['full_percent']:.4g} %", str(point["threads"]),
                          number(found["wall"]), number(found["cpu"]), *mib))
    return lines


def line(*cells):
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def head(path, record):
    """Where and with what: one line for each record."""
    machine, found, rounds = record["machine"], record["versions"], record["rounds"]
    tools = ", ".join(found[name].split("(")[0].strip() for name in ("qemu-img", "curl", "openstack")
                      if name in found)
    quick = ", a quick run that says nothing about speed" if record["quick"] else ""
    return (f"[`{path}`]({path}): {record['date'][:10]}, {machine['cores']} cores of an "
            f"{machine['cpu']}, {machine['memory_bytes'] / GIB:.0f} GiB, Linux {machine['kernel']}; "
            f"{found.get('snapcow', 'snapcow')} at {found.get('snapcow_commit', 'no commit')}; "
            f"{tools}; "
            f"{f'medians of {rounds} rounds' if rounds > 1 else 'one round'}{quick}.")


def shown(path):
    """A record's path as the README has it."""
    full = pathlib.Path(path).resolve()
    return str(full.relative_to(REPO)) if full.is_relative_to(REPO) else str(path)


def render(paths, whole=False):
    """The markdown of one or several records; rows of a later one replace those of an earlier."""
    found = [records.read(pathlib.Path(path)) for path in paths]
    merged = records.merged(found)
    lines = [head(shown(path), record) for path, record in zip(paths, found)]
    lines += ["", *bars(merged), ""]
    if not whole:
        lines += ["<details><summary>All that was measured</summary>", ""]
    lines += ways(merged)
    if merged["scale"]:
        lines += ["", *scale(merged)]
    if not whole:
        lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


# --- README -------------------------------------------------------------------------------------

def split(text):
    """The README before, between and after the markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise BenchError(f"README.md needs one line `{BEGIN}` and, below it, one `{END}`")
    before, rest = text.split(BEGIN)
    inner, after = rest.split(END)
    return before, inner, after


def write_readme(paths):
    for path in paths:
        if not shown(path).startswith("benches/record/"):
            raise BenchError(f"{path}: the README shows only records in benches/record", 2)
    before, _, after = split(README.read_text())
    README.write_text(f"{before}{BEGIN}\n{render(paths)}{END}{after}")


def check_readme():
    """Raises unless the README shows what its records say."""
    _, inner, _ = split(README.read_text())
    named = list(dict.fromkeys(LINK.findall(inner)))
    if not named:
        if any(records.FOLDER.glob("*.json")):
            raise BenchError("README.md names no record, but benches/record has some: "
                             "tools/bench --table RECORD --readme")
        return "README.md names no record, and there is none"
    missing = [path for path in named if not (REPO / path).exists()]
    if missing:
        raise BenchError(f"README.md names {', '.join(missing)}, which is not there")
    if inner != f"\n{render([str(REPO / path) for path in named])}":
        raise BenchError("README.md differs from its record: tools/bench --table "
                         f"{' '.join(named)} --readme")
    return f"README.md is what {', '.join(named)} says"
