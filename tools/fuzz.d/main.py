"""Builds the fuzz targets and runs them; see `--help` and fuzz/README.md."""
import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

REPO = pathlib.Path(__file__).resolve().parents[2]
FUZZ = REPO / "fuzz"
WORK = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target")).resolve()
# Bigger inputs find the same and cost more.
INPUT_MAX = {"http_script": 8192, "header_read": 512, "parse": 256, "layout": 1024, "zero_scan": 1024, "free_disk": 512,
             "free_ext4": 512, "free_jbd2": 1024, "free_lvm": 512, "free_table": 512, "free_xfs": 512}
INPUT_MAX_ELSE = 4096
# A case that takes longer hangs; one that takes more memory is not bounded.
CASE_SECONDS = 25
MEMORY_MIB = 1536


class FuzzError(Exception):
    """What keeps from going on, as one sentence."""


def targets():
    return sorted(path.stem for path in (FUZZ / "fuzz_targets").glob("*.rs"))


def arguments():
    parser = argparse.ArgumentParser(
        prog="tools/fuzz", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Replays every kept case of fuzz/, then fuzzes each target for a while, and reports cases a "
                    "second and coverage.",
        epilog="What is found is written to target/fuzz/found/TARGET; keep it as a file in "
               "fuzz/regressions/TARGET.\nExit status: 0 nothing found, 1 something found, 2 wrong usage.")
    add = parser.add_argument
    add("targets", nargs="*", metavar="TARGET", help=f"those to run (all: {', '.join(targets())})")
    add("--seconds", type=int, default=10, metavar="N", help="for each target (10); 0 only replays what is kept")
    add("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="targets at a time (one a core)")
    add("--case", type=pathlib.Path, metavar="FILE", help="run this one case of one target, and stop")
    add("--asan", action="store_true", help="with AddressSanitizer; needs a nightly compiler, or RUSTC_BOOTSTRAP=1")
    add("--keep-seeds", action="store_true",
        help="afterwards, reduce what each target has learnt to a few files and keep those in fuzz/seeds")
    found = parser.parse_args()
    unknown = sorted(set(found.targets) - set(targets()))
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}")
    if found.case and len(found.targets) != 1:
        parser.error("--case needs exactly one TARGET")
    if found.seconds < 0 or found.jobs < 1:
        parser.error("--seconds and --jobs count from 0 and 1")
    found.targets = found.targets or targets()
    return found


def build(names, asan):
    """The programs, by target. Built beside the product's own, whose dependencies serve both."""
    env = dict(os.environ, CARGO_INCREMENTAL="0", RUSTC_WRAPPER=str(REPO / "tools/fuzz.d/rustc"))
    folder = WORK
    command = ["cargo", "build", "--release", "--locked", "--manifest-path", str(FUZZ / "Cargo.toml")]
    if asan:
        env["RUSTFLAGS"] = "-Zsanitizer=address"
        # With a target named, build scripts and macros are left alone.
        folder = WORK / "fuzz" / "asan"
        host = re.search(r"^host: (.*)$", subprocess.check_output(["rustc", "-vV"], text=True), re.M)[1]
        command += ["--target", host]
    env["CARGO_TARGET_DIR"] = str(folder)
    command += [word for name in names for word in ("--bin", name)]
    if subprocess.run(command, env=env, cwd=REPO).returncode != 0:
        raise FuzzError("the targets do not build")
    programs = folder / host / "release" if asan else folder / "release"
    return {name: programs / name for name in names}


def kept(name):
    """The cases that are in the repository."""
    folders = (FUZZ / "seeds" / name, FUZZ / "regressions" / name)
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]


def run(program, words, log):
    with open(log, "ab") as out:
        return subprocess.run([str(program), *map(str, words)], stdin=subprocess.DEVNULL, stdout=out,
                              stderr=subprocess.STDOUT, env=dict(os.environ, RUST_BACKTRACE="1")).returncode


def fuzz(name, program, seconds):
    """Replays and fuzzes one target; its row of the table."""
    corpus, found = WORK / "fuzz" / "corpus" / name, WORK / "fuzz" / "found" / name
    log = WORK / "fuzz" / f"{name}.log"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    limits = [f"-timeout={CASE_SECONDS}", f"-rss_limit_mb={MEMORY_MIB}", f"-artifact_prefix={found}/"]
    cases = kept(name)
    status = run(program, [*limits, *cases], log) if cases else 0
    row = {"name": name, "kept": len(cases), "log": log, "status": status, "cases": len(cases)}
    if status == 0 and seconds > 0:
        longest = INPUT_MAX.get(name, INPUT_MAX_ELSE)
        folders = [corpus, *(folder for folder in (FUZZ / "seeds" / name, FUZZ / "regressions" / name)
                             if folder.is_dir())]
        row["status"] = run(program, [*limits, f"-max_total_time={seconds}", f"-max_len={longest}",
                                      "-print_final_stats=1", "-reload=0", "-len_control=0",
                                      *folders], log)
    return dict(row, **figures(log.read_text(errors="replace")))


def figures(text):
    """What libFuzzer has printed of itself."""
    last = lambda pattern: (re.findall(pattern, text) or [None])[-1]
    number = lambda pattern: int(last(pattern) or 0)
    return {
        "executed": number(r"stat::number_of_executed_units:\s*(\d+)"),
        "rate": number(r"stat::average_exec_per_sec:\s*(\d+)"),
        "covered": number(r"cov: (\d+)"),
        "edges": number(r"Loaded 1 modules\s+\((\d+) inline 8-bit counters\)"),
        "corpus": number(r"corp: (\d+)"),
        "first": last(r"(?m)^(.*(?:panicked at|ERROR: |SUMMARY: ).*)$"),
    }


def table(rows):
    head = ("target", "kept", "cases", "cases/s", "edges", "of all", "corpus", "")
    lines = [head]
    for row in rows:
        share = f"{100 * row['covered'] / row['edges']:.1f} %" if row["edges"] else "-"
        lines.append((row["name"], row["kept"], row["executed"], row["rate"], row["covered"], share, row["corpus"],
                      "" if row["status"] == 0 else "FOUND SOMETHING"))
    widths = [max(len(str(line[column])) for line in lines) for column in range(len(head))]
    for line in lines:
        first, *rest = zip(line, widths)
        print("  ".join([f"{first[0]:<{first[1]}}", *(f"{str(cell):>{width}}" for cell, width in rest)]).rstrip())
    total = sum(row["executed"] for row in rows)
    print(f"{total} cases in all; edges: of the product's code that each target is linked with")


def keep_seeds(name, program, most=40):
    """The smallest set of files that covers what the corpus covers; of it the smallest `most`."""
    corpus, seeds = WORK / "fuzz" / "corpus" / name, FUZZ / "seeds" / name
    merged = WORK / "fuzz" / "merged" / name
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    seeds.mkdir(parents=True, exist_ok=True)
    if run(program, ["-merge=1", merged, corpus, seeds], WORK / "fuzz" / f"{name}.merge.log") != 0:
        raise FuzzError(f"{name}: the corpus cannot be merged")
    for path in seeds.iterdir():
        path.unlink()
    for path in sorted(merged.iterdir(), key=lambda path: (path.stat().st_size, path.name))[:most]:
        shutil.copyfile(path, seeds / path.name[:16])


def main():
    options = arguments()
    begun = time.monotonic()
    programs = build(options.targets, options.asan)
    built = time.monotonic()
    if options.case:
        program = programs[options.targets[0]]
        return subprocess.run([str(program), f"-timeout={CASE_SECONDS}", str(options.case)]).returncode and 1
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda item: fuzz(*item, options.seconds), programs.items()))
    table(rows)
    print(f"built in {built - begun:.0f} s, run in {time.monotonic() - built:.0f} s")
    bad = [row for row in rows if row["status"] != 0]
    for row in bad:
        print(f"\n{row['name']}: {row['first'] or 'ended badly'}; all of it: {row['log']}")
        for path in sorted((WORK / "fuzz" / "found" / row["name"]).iterdir()):
            print(f"  again: tools/fuzz {row['name']} --case {path}")
    if options.keep_seeds and not bad:
        for name, program in programs.items():
            keep_seeds(name, program)
    return 1 if bad else 0


if __name__ == "__main__":
    # Ctrl-C ends the targets too: they are of the same group.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        sys.exit(main())
    except FuzzError as error:
        sys.exit(f"tools/fuzz: {error}")
