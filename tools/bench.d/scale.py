"""Cost against size: sparse disks up to 16 TiB, up to 100 % full, on 1, 2 and 4 threads."""
import json

import meter
import proof
import stats
import workload
from model import BenchError
from sitting import say
from workload import GIB, MIB

TIB = 1 << 40
SIZES = ((GIB, "1 GiB"), (64 * GIB, "64 GiB"), (TIB, "1 TiB"), (16 * TIB, "16 TiB"))
RSS_MAX = 320 << 20
# Of the memory beside the map, against the smallest disk.
GROWTH_MAX = 1.10
SCRIPT = '"$SNAPCOW" convert -q --progress none {}--report "$OUT/report.json" "$RAW" "$OUT/image.qcow2"'


def name_of(size):
    return next((name for bytes_, name in SIZES if bytes_ == size), f"{size // GIB} GiB")


def points(quick):
    """(virtual size, bytes of data, threads or None for the default)."""
    if quick:
        return [(GIB, 0, None), (GIB, 32 * MIB, 1), (TIB, 0, None)]
    found = [(size, 0, None) for size, _ in SIZES]
    # 100 % of 4 GiB: 8.4 GiB of tmpfs with an image that does not get smaller.
    found += [(size, size * share // 100, None)
              for size in (GIB, 4 * GIB) for share in (10, 50, 100)]
    found += [(4 * GIB, 4 * GIB // 2, threads) for threads in (1, 2, 4)]
    return found


class Point:
    """One disk, converted several times with the same options."""

    def __init__(self, bench, size, data, threads):
        self.bench, self.size, self.data = bench, size, data
        self.options = f"--threads {threads} " if threads else ""
        self.threads, self.out = threads, bench.tmpfs / "out"
        self.disk = None

    def __enter__(self):
        need = self.data * 21 // 10 + 64 * MIB
        what = f"{name_of(self.size)} with {self.data // MIB} MiB of data"
        workload.need(self.bench.tmpfs, need, what)
        workload.need_memory(need, what)
        path = self.bench.tmpfs / "scale.raw"
        self.disk = workload.apart(workload.scattered, path, self.size, self.data)
        return self

    def __exit__(self, *_):
        if self.disk:
            self.disk.path.unlink()

    def measure(self):
        """Warm-up, proof, rounds: what the record has of this point."""
        script = SCRIPT.format(self.options)
        env = self.bench.environment(self.disk) | {
            "OUT": str(self.out), "TMPDIR": str(self.out)}
        samples, report, proven = [], None, None
        for number in range(-self.bench.warm, self.bench.rounds):
            self.out.mkdir()
            try:
                sample, _ = meter.run(script, self.out, env)
                sample["size"] = (self.out / "image.qcow2").stat().st_size
                if not report:
                    report = json.loads((self.out / "report.json").read_text())
                    proven = proof.qcow2(self.disk.path, self.out / "image.qcow2")
            finally:
                for path in self.out.iterdir():
                    path.unlink()
                self.out.rmdir()
            if number >= 0:
                samples.append({"round": number, **sample})
        receipt = report["receipt"]
        medians = stats.medians(samples)
        say(f"scale {name_of(self.size)}, {self.data // MIB} MiB of data, {self.options or 'defaults'}: "
            f"{medians['wall']:.2f} s, {medians['rss'] / MIB:.0f} MiB")
        return {
            "command": script, "virtual_bytes": self.size, "data_bytes": self.disk.data,
            "full_percent": round(100 * self.data / self.size, 1),
            "threads": report["plan"]["threads"], "samples": samples, "medians": medians,
            "image_bytes": receipt["image_bytes"],
            "metadata_bytes": receipt["image_bytes"] - report["stages"]["encode"]["output_bytes"],
            # One bit a cluster, eight bytes a data cluster.
            "map_bytes": receipt["clusters"] // 8 + 8 * receipt["data_clusters"], "proof": proven,
        }


def scale(bench):
    """All points that fit; one that does not is there with the reason."""
    found = []
    for size, data, threads in points(bench.quick):
        try:
            with Point(bench, size, data, threads) as point:
                found.append(point.measure() | {"status": "ok"})
        except (BenchError, meter.Failed, proof.Differs) as error:
            status = {BenchError: "absent", meter.Failed: "failed", proof.Differs: "differs"}[type(error)]
            why = bench.scrub(str(error))
            found.append({"virtual_bytes": size, "data_bytes": data, "threads": threads,
                          "status": status, "why": why})
            say(f"scale {name_of(size)}: {status.upper()}: {why}")
    return found


def memory(bench):
    """The row about memory: the same data on disks of four sizes. (sitting, row) of the record."""
    # Less data would not fill the buffers, and a large disk would look like growth.
    data = (32 if bench.quick else 512) * MIB
    ways, growth = {}, []
    for size, name in SIZES:
        way = {"title": f"snapcow, {name}", "command": SCRIPT.format(""), "samples": [], "medians": {}}
        try:
            with Point(bench, size, data, None) as point:
                way |= point.measure() | {"status": "ok"}
                growth.append(max(sample["rss"] for sample in way["samples"]) - way["map_bytes"])
        except (BenchError, meter.Failed) as error:
            way |= {"status": "failed", "why": bench.scrub(str(error))}
        except proof.Differs as error:
            way |= {"status": "differs", "why": bench.scrub(str(error))}
        ways[name] = way
    sitting = {"workload": {"kind": f"sparse, {data // MIB} places of 1 MiB with contents of files"},
               "place": "$TMPFS", "rounds": bench.rounds, "warm_up_rounds": bench.warm,
               "rss_floor": meter.rss_floor(), "ways": ways}
    return sitting, {"name": "memory", "sitting": "memory", "bars": memory_bars(ways, growth, bench),
                     "work": "peak RSS at defaults, 1 GiB to 16 TiB virtual, the same data",
                     "ours": list(ways)[-1]}


def memory_bars(ways, growth, bench):
    bars = [{"measure": "rss", "limit": RSS_MAX, "against": [], "least": False, "met": None},
            {"measure": "growth", "limit": GROWTH_MAX, "against": [], "least": False, "met": None}]
    bad = [f"{name}: {way['status']} ({way['why']})" for name, way in ways.items()
           if way["status"] != "ok"]
    for bar in bars:
        if bad:
            bar["why"] = "; ".join(bad)
            continue
        bar["ours"] = (max(sample["rss"] for way in ways.values() for sample in way["samples"])
                       if bar["measure"] == "rss" else max(growth) / growth[0])
        if bench.quick:
            bar["why"] = "a quick run judges nothing"
        else:
            bar["met"] = stats.verdict(bar, bar["ours"])
    return bars
