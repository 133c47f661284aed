"""One sitting: ways taking turns over one disk, each output proven once, everything taken back."""
import os
import pathlib
import shutil
import sys
import uuid

import encode
import machine
import meter
import proof
import stats
import workload
from cloud import Cloud, clean_environment, lab_folder
from model import BenchError

HERE = pathlib.Path(__file__).resolve().parent


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Bench:
    """What all sittings share: two scratch folders, the programs, the disk that was made last."""

    def __init__(self, tmpfs, folder, programs, rounds, quick, warm=None):
        self.tmpfs, self.folder, self.programs = tmpfs, folder, programs
        self.rounds, self.quick = rounds, quick
        self.warm = int(not quick) if warm is None else warm
        self.name = self.disk = self.source = self.cloud = None
        # Only the client, not the Python beside it.
        client = programs.paths["openstack"]
        (tmpfs / "bin").mkdir()
        if client:
            (tmpfs / "bin/openstack").symlink_to(client)
        # Parts of commands and messages that are of this machine alone.
        self.places = {str(tmpfs): "$TMPFS", str(folder): "$FOLDER"}

    def scrub(self, text):
        return machine.scrub(text, self.places)

    def upload(self, cloud):
        """The disk as an image in Glance, once: all variants of the lab share one store."""
        if not self.source:
            say(f"uploading the source to {cloud.cloud}")
            self.source, self.cloud = cloud.upload(self.disk.path), cloud

    def forget(self):
        """The source image does not outlive its disk."""
        if self.source:
            self.cloud.delete(self.source)
        self.source = self.cloud = None

    def close(self):
        self.forget()

    def workload(self, name):
        """The disk of this name; the one before it makes room."""
        if self.name != name:
            if self.disk:
                self.disk.unlink()
                self.forget()
            self.name = self.disk = None
            size = workload.most(name, self.quick)
            workload.need(self.tmpfs, size, f"the disk `{name}`")
            workload.need_memory(size, f"the disk `{name}`")
            say(f"making the disk `{name}`")
            self.disk = workload.apart(workload.make, name, self.tmpfs, self.quick)
            self.name = name
            say(f"{self.disk.len / workload.GIB:.2f} GiB, {self.disk.data / workload.MIB:.0f} MiB of data")
        return self.disk

    def environment(self, disk):
        paths = self.programs.paths
        path = os.environ.get("PATH", "/usr/bin:/bin")
        return clean_environment() | {
            "PATH": f"{self.tmpfs}/bin:{path}:/usr/sbin:/sbin", "LC_ALL": "C",
            "RAW": str(disk.path), "BYTES": str(disk.len), "BENCH": str(HERE),
            "OURS": str(self.tmpfs / "ours.qcow2"), "SNAPCOW": paths["snapcow"] or "",
            "SNAPCOW_ISAL": paths["snapcow-isal"] or "",
            "QCOW2_TO_STDOUT": paths["qcow2-to-stdout.py"] or ""}


class Run:
    """The ways of one sitting while they are measured."""

    def __init__(self, bench, sitting, cloud):
        self.bench, self.sitting, self.cloud = bench, sitting, cloud
        self.out = (bench.folder if sitting.place == "disk" else bench.tmpfs) / "out"
        self.env = bench.environment(bench.disk) | {"OUT": str(self.out), "TMPDIR": str(self.out)}
        self.services = ()
        if cloud:
            # In a folder that nobody else can read, and in no list of processes.
            self.token = bench.tmpfs / "token"
            self.env |= cloud.environment | {
                "GLANCE": cloud.glance, "IMAGE": bench.source or "", "TOKEN_HEADER": str(self.token),
                "SERVER": cloud.SERVER} | cloud.member
            self.services = cloud.processes()

    def once(self, way, prove, keep=None):
        """Runs a way, and takes back what it made: (sample, proof or None)."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        if self.cloud:
            self.token.write_text(f"X-Auth-Token: {self.cloud.token()}\n")
        if self.sitting.place == "disk":
            # What the run before it has left to be written is not this one's work.
            os.sync()
        try:
            sample, text = meter.run(way.script, self.out, self.env, self.services)
            if way.own_clock:
                sample["wall"] = float((self.out / "clock").read_text())
            return sample, self.made(way, sample, text, prove, keep)
        finally:
            shutil.rmtree(self.out, ignore_errors=True)

    def made(self, way, sample, text, prove, keep):
        if way.makes == "bench":
            encode.take(self.out / "bench.json", sample)
        if way.makes == "image":
            return self.image(way, sample, text, prove, keep)
        path = {"qcow2": "image.qcow2", "extents": "extents", "copy": "copy"}.get(way.makes)
        if not path:
            return "makes nothing"
        path = self.out / path
        if not path.exists():
            raise meter.Failed("ended well, but made nothing")
        sample["size"] = path.stat().st_size
        done = None
        if prove:
            source = self.env["OURS"] if way.makes == "copy" else self.expected(way)
            done = getattr(proof, way.makes)(source, path)
        if keep:
            shutil.move(path, keep)
        return done

    def expected(self, way):
        """The raw disk that the way's image has to be equal to."""
        disk = self.bench.disk
        return disk.trimmed if way.trims else disk.path

    def image(self, way, sample, text, prove, keep):
        """An image in Glance: its size, its proof after a download, its end."""
        ident = (text.strip().splitlines() or [""])[-1]
        try:
            uuid.UUID(ident)
        except ValueError:
            raise meter.Failed(f"printed no image ID but `{ident[:80]}`") from None
        local = keep or self.bench.tmpfs / "proof.qcow2"
        try:
            sample["size"] = self.cloud.size(ident)
            if not (prove or keep):
                return None
            self.cloud.download(ident, local)
            return "downloaded; " + proof.qcow2(self.expected(way), local)
        finally:
            self.cloud.delete(ident)
            if local != keep:
                local.unlink(missing_ok=True)


def ways_of(rows):
    """The ways of some rows, each once, ours first."""
    found = {row.ours.name: row.ours for row in rows}
    for row in rows:
        for way in row.rivals:
            found.setdefault(way.name, way)
    return found


def measure(bench, sitting, rows, all_rows):
    """Everything that these rows of a sitting need, as the record has it."""
    disk = bench.workload(sitting.workload)
    cloud = Cloud(sitting.glance) if sitting.glance else None
    room(bench, sitting, disk)
    ways = ways_of(rows)
    results = {name: {"title": way.title, "command": way.script, "status": "ok", "samples": []}
               for name, way in ways.items()}
    for name, way in ways.items():
        lacking = bench.programs.why_none(("snapcow", *way.needs) if "$SNAPCOW\"" in way.script
                                          else way.needs)
        if lacking:
            results[name] |= {"status": "absent", "why": bench.scrub(lacking)}
    server = None
    if sitting.server:
        server = cloud.serve(bench.disk.path)
    elif cloud:
        bench.upload(cloud)
    try:
        run = Run(bench, sitting, cloud)
        if any("$OURS" in way.script for way in ways.values()):
            prepare(run, ways_of(every_row(all_rows, sitting))[sitting.keep], ways, results)
        rounds(run, ways, results)
    finally:
        (bench.tmpfs / "ours.qcow2").unlink(missing_ok=True)
        if server:
            cloud.unserve(server)
        if cloud:
            cloud.strays()
    for result in results.values():
        result["medians"] = stats.medians(result["samples"])
    for row in rows:
        for floor in row.floors:
            results[floor.name] = floor_of(floor, results)
    return {"workload": disk.about, "place": "$FOLDER" if sitting.place == "disk" else "$TMPFS",
            "glance": sitting.glance or None, "rounds": bench.rounds, "warm_up_rounds": bench.warm,
            "rss_floor": meter.rss_floor(), "ways": results}


def every_row(all_rows, sitting):
    return [row for row in all_rows if row.sitting == sitting.name]


def prepare(run, way, ways, results):
    """Makes $OURS, not measured."""
    try:
        run.once(way, True, keep=run.bench.tmpfs / "ours.qcow2")
    except (meter.Failed, proof.Differs, BenchError) as error:
        for name, other in ways.items():
            if "$OURS" in other.script:
                why = run.bench.scrub(f"no output of our own to work with: {error}")
                results[name] |= {"status": "failed", "why": why}


def rounds(run, ways, results):
    """The warm-up and the rounds that count. A way that has failed takes no further part."""
    bench = run.bench
    for number in range(-bench.warm, bench.rounds):
        for name in stats.order(ways, number):
            result = results[name]
            if result["status"] != "ok":
                continue
            label = "warm-up" if number < 0 else f"{number + 1}/{bench.rounds}"
            try:
                sample, proven = run.once(ways[name], "proof" not in result)
            except (meter.Failed, BenchError) as error:
                result |= {"status": "failed", "why": bench.scrub(str(error)), "samples": []}
            except proof.Differs as error:
                result |= {"status": "differs", "why": bench.scrub(str(error)), "samples": []}
            else:
                if proven:
                    result["proof"] = proven
                if number >= 0:
                    result["samples"].append({"round": number, **sample})
                say(f"{run.sitting.name} {label} {name}: {sample['wall']:.2f} s wall, "
                    f"{sample['cpu']:.2f} s CPU")
            if result["status"] != "ok":
                say(f"{run.sitting.name} {label} {name}: {result['status'].upper()}: {result['why']}")


def floor_of(floor, results):
    """A floor's times, round by round, from those of its parts."""
    found = {"title": floor.title, "formula": floor.formula, "status": "ok"}
    for part in floor.parts:
        if results[part]["status"] != "ok":
            return found | {"status": results[part]["status"], "samples": [], "medians": {},
                            "why": f"{part}: {results[part]['why']}"}
    walls = [stats.by_round(results[part]["samples"], "wall") for part in floor.parts]
    samples = [{"round": number, "wall": floor.wall(*(wall[number] for wall in walls))}
               for number in walls[0]]
    return found | {"samples": samples, "medians": stats.medians(samples)}


def room(bench, sitting, disk):
    """Refuses what would not fit, before the first run."""
    what = f"the sitting `{sitting.name}`"
    output = disk.data * 11 // 10 + 16 * workload.MIB
    if sitting.place == "tmpfs":
        workload.need(bench.tmpfs, output, what)
        workload.need_memory(output, what)
    elif sitting.glance:
        # The manual procedure has the whole raw disk and its image, Glance the same; one file
        # system may have to hold it all. The image that is proven lies on tmpfs.
        uploaded = 0 if bench.source else disk.len
        workload.need(bench.folder, disk.len + uploaded + 2 * output, what)
        workload.need(lab_folder(), uploaded + output, what)
        workload.need_memory(2 * output, what)
    else:
        workload.need(bench.folder, output, what)
        workload.need_memory(output, what)
