"""Commands of tools/bench; see `--help` and benches/README.md."""
import argparse
import pathlib
import signal
import sys
import tempfile
import unittest

import cloud
import machine
import record as records
import rows_files
import rows_glance
import rows_guide
import scale
import sitting
import stats
import table
from model import BenchError
from sitting import Bench, say

ROWS = {row.name: row for row in (*rows_files.ROWS, *rows_glance.ROWS, *rows_guide.ROWS)}
SITTINGS = {one.name: one for one in (*rows_files.SITTINGS, *rows_glance.SITTINGS, *rows_guide.SITTINGS)}
# Measured over several disks; see scale.py.
MEMORY = "memory"
QUICK = ("none", "durable", "zlib", "zlib-isal", "zlib-small", "zstd", "zstd-3", "zeros", MEMORY)
# A way that makes something else than the raw disk's equal is a bug, whoever made it.
BAD = ("differs",)


def arguments():
    parser = argparse.ArgumentParser(
        prog="tools/bench", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="snapcow against its rivals: paired, interleaved runs of whole programs, every "
                    "output proven equal.",
        epilog="Exit status: 0 all was measured and equal (a missed bar is no failure), 1 an output "
               "differs, snapcow failed,\nor something is lacking, 2 wrong usage.")
    add = parser.add_argument
    add("--quick", action="store_true", help="small disks, one round, no bar judged: a smoke test")
    add("--rounds", type=positive, help="rounds that count (5; 1 with --quick)")
    add("--warm-up", type=int, choices=range(4), metavar="N", help="rounds before those (1; 0 with --quick)")
    add("--only", help="rows to measure, separated by commas; --list shows them")
    add("--scale", action="store_true", help="cost against size, fullness and threads; alone unless --only")
    add("--list", action="store_true", help="the rows, their rivals, and what is lacking")
    add("--snapcow", default=str(machine.REPO / "target/release/snapcow"), metavar="PATH",
        help="the program (target/release/snapcow)")
    add("--snapcow-isal", metavar="PATH", help="a program built with the feature isal")
    add("--record", type=pathlib.Path, metavar="FILE",
        help="where the record goes (benches/record/DATE-MACHINE.json; none with --quick)")
    add("--folder", default="/var/tmp", metavar="DIR", help="a folder on a disk (/var/tmp)")
    add("--tmpfs", default="/dev/shm", metavar="DIR", help="a folder on tmpfs (/dev/shm)")
    add("--table", nargs="+", metavar="RECORD",
        help="print the tables of records; rows of a later one replace those of an earlier")
    add("--readme", action="store_true", help="with --table: put them into README.md instead")
    add("--check", action="store_true", help="whether README.md shows what its records say")
    add("--self-test", action="store_true", help="the harness's own tests")
    return parser, parser.parse_args()


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def chosen(asked):
    """The names of the rows to measure."""
    if asked.only is not None:
        names = [name.strip() for name in asked.only.split(",") if name.strip()]
        unknown = [name for name in names if name not in ROWS and name != MEMORY]
        if unknown or not names:
            raise BenchError(f"no row {', '.join(unknown) or 'was named'}; there are "
                             f"{', '.join([*ROWS, MEMORY])}", 2)
        return list(dict.fromkeys(names))
    if asked.scale:
        return []
    return list(QUICK) if asked.quick else [*ROWS, MEMORY]


def programs(asked):
    """The programs; the client of the lab is there only while the lab is."""
    client = cloud.lab_folder() / "venv/bin/openstack"
    path = lambda text: text and str(pathlib.Path(text).absolute())  # noqa: E731
    return machine.Programs(path(asked.snapcow), path(asked.snapcow_isal),
                            str(client) if client.exists() else None)


def show_list(found):
    """Every row with its ways, the bars, and the reason why one cannot be measured."""
    for row in ROWS.values():
        print(f"{row.name}: {row.work}")
        for way in (row.ours, *row.rivals):
            lacking = found.why_none(way.needs)
            print(f"    {way.name}: {way.title}" + (f" ({lacking})" if lacking else ""))
        for bar in row.bars:
            bar = vars(bar)
            against = f" of {' or '.join(bar['against'])}" if bar["against"] else ""
            print(f"    bar: {table.NAMES.get(bar['measure'], bar['measure'])} {table.limit(bar)}{against}")
    print(f"{MEMORY}: peak RSS at defaults, 1 GiB to 16 TiB virtual")


def ready(asked, found):
    """Refuses what would only fail later."""
    for name in ("snapcow", "qemu-img"):
        lacking = found.why_not(name)
        if lacking:
            raise BenchError(lacking)
    if asked.snapcow_isal and found.why_not("snapcow-isal"):
        raise BenchError(found.why_not("snapcow-isal"), 2)
    for folder in (asked.tmpfs, asked.folder):
        if not pathlib.Path(folder).is_dir():
            raise BenchError(f"{folder} is no folder", 2)
    records.writable(asked.record or records.FOLDER / "a")
    if machine.filesystem(asked.tmpfs) != "tmpfs":
        raise BenchError(f"{asked.tmpfs} is on {machine.filesystem(asked.tmpfs)}, not on tmpfs: the rows "
                         "would time a disk; name another one by --tmpfs", 2)


def measure(bench, names, result, asked_for):
    """All rows, sitting by sitting; one that is not possible is there with the reason."""
    rows = [ROWS[name] for name in names if name != MEMORY]
    for name in dict.fromkeys(row.sitting for row in rows):
        own = [row for row in rows if row.sitting == name]
        try:
            found = sitting.measure(bench, SITTINGS[name], own, ROWS.values())
        except (BenchError, cloud.Absent) as error:
            why = bench.scrub(str(error))
            say(f"{name}: NOT MEASURED: {why}")
            # A machine without a lab is no failure; one without room is, and so is a row asked for.
            fails = asked_for or not isinstance(error, cloud.Absent)
            found = {"why": why, "fails": fails, "ways": {}}
        result["sittings"][name] = found
        for row in own:
            bars = [vars(bar) | {"against": list(bar.against)} for bar in row.bars]
            if "why" in found:
                bars = [bar | {"met": None, "why": found["why"]} for bar in bars]
            else:
                bars = [stats.judge(bar, row.ours.name, found["ways"], not bench.quick) for bar in bars]
            result["rows"].append({"name": row.name, "work": row.work, "sitting": name,
                                   "ours": row.ours.name, "bars": bars})
    if MEMORY in names:
        result["sittings"][MEMORY], row = scale.memory(bench)
        result["rows"].append(row)


def failures(result):
    """What ends the run with status 1."""
    found = []
    for name, one in result["sittings"].items():
        if one.get("fails"):
            found.append(f"{name}: {one['why']}")
        ours = {row["ours"] for row in result["rows"] if row["sitting"] == name}
        for way, state in one["ways"].items():
            own = way in ours or name == MEMORY
            if state["status"] in BAD or own and state["status"] == "failed":
                found.append(f"{name}, {way}: {state['status']}: {state['why']}")
    return found + [f"scale: {point['status']}: {point['why']}" for point in result["scale"]
                    if point["status"] in ("failed", *BAD)]


def run(asked):
    names, found = chosen(asked), programs(asked)
    ready(asked, found)
    rounds = asked.rounds or (1 if asked.quick else 5)
    with tempfile.TemporaryDirectory(prefix="snapcow-bench-", dir=asked.tmpfs) as tmpfs, \
            tempfile.TemporaryDirectory(prefix="snapcow-bench-", dir=asked.folder) as folder:
        bench = Bench(pathlib.Path(tmpfs), pathlib.Path(folder), found, rounds, asked.quick, asked.warm_up)
        result = {
            "schema": records.SCHEMA, "date": machine.today().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "machine": machine.facts(folder, tmpfs), "versions": machine.versions(found),
            "quick": asked.quick, "rounds": rounds, "sittings": {}, "rows": [], "scale": []}
        try:
            measure(bench, names, result, asked_for=asked.only is not None)
            if asked.scale:
                result["scale"] = scale.scale(bench)
        finally:
            bench.close()
    path = asked.record or (None if asked.quick else records.new_path(result))
    if path:
        records.write(result, path)
        print(table.render([path], whole=True))
        say(f"the record is {path}")
    else:
        print("\n".join(table.bars(records.merged([result]))))
    wrong = failures(result)
    for text in wrong:
        say(f"FAILED: {text}")
    return 1 if wrong else 0


def stopped(*_):
    # `timeout` sends it twice, and the second one would cut off what takes things back.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def main():
    # Scratch folders, processes and images in Glance are taken back on every way out.
    signal.signal(signal.SIGTERM, stopped)
    parser, asked = arguments()
    if asked.readme and not asked.table:
        parser.error("--readme goes with --table")
    if asked.self_test:
        suite = unittest.defaultTestLoader.discover(pathlib.Path(__file__).parent, "test_*.py")
        return 0 if unittest.TextTestRunner().run(suite).wasSuccessful() else 1
    if asked.check:
        print(table.check_readme())
    elif asked.table and asked.readme:
        table.write_readme(asked.table)
    elif asked.table:
        print(table.render(asked.table, whole=True), end="")
    elif asked.list:
        show_list(programs(asked))
    else:
        return run(asked)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        print(f"tools/bench: {error}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)
