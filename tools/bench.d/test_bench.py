"""The harness's own tests: `tools/bench --self-test`. No timing decides."""
import json
import os
import pathlib
import tempfile
import time
import unittest
from unittest import mock

import aged
import copy_extents
import encode
import machine
import main
import meter
import proof
import record as records
import stats
import table
import workload
from model import BenchError


def way(walls, **more):
    samples = [{"round": number, "wall": wall, **{name: values[number] for name, values in more.items()}}
               for number, wall in enumerate(walls)]
    return {"title": "a way", "command": "true", "status": "ok", "samples": samples,
            "medians": stats.medians(samples)}


def bar(measure, limit, against=(), least=False):
    return {"measure": measure, "limit": limit, "against": list(against), "least": least}


class Stats(unittest.TestCase):
    def test_medians_leave_out_what_was_not_measured(self):
        samples = [{"wall": 1.0, "written": None}, {"wall": 9.0, "written": 4}, {"wall": 2.0}]
        self.assertEqual(stats.medians(samples), {"wall": 2.0, "written": 4})

    def test_ratios_pair_the_same_round(self):
        ours = [{"round": 0, "wall": 1.0}, {"round": 2, "wall": 6.0}]
        theirs = [{"round": 0, "wall": 2.0}, {"round": 1, "wall": 1.0}, {"round": 2, "wall": 4.0}]
        self.assertEqual(stats.paired(ours, theirs, "wall"), [0.5, 1.5])

    def test_the_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_medians(self):
        ways = {"ours": way([1.0, 4.0, 9.0]), "rival": way([2.0, 5.0, 6.0])}
        found = stats.judge(bar("wall", 0.8, ["rival"]), "ours", ways)
        self.assertEqual((found["ratio"], found["ratio_least"], found["ratio_most"]), (0.8, 0.5, 1.5))
        self.assertEqual((found["ours"], found["theirs"], found["met"]), (4.0, 5.0, True))
        self.assertFalse(stats.judge(bar("wall", 0.79, ["rival"]), "ours", ways)["met"])

    def test_the_best_of_several_rivals_counts(self):
        ways = {"ours": way([1.0]), "slow": way([9.0]), "fast": way([2.0])}
        found = stats.judge(bar("wall", 1.0, ["slow", "fast"]), "ours", ways)
        self.assertEqual((found["rival"], found["ratio"]), ("fast", 0.5))

    def test_a_rival_that_failed_is_never_beaten(self):
        for status in ("failed", "absent", "differs"):
            ways = {"ours": way([1.0]), "rival": way([9.0]) | {"status": status, "why": "a reason"}}
            found = stats.judge(bar("wall", 1.0, ["rival"]), "ours", ways)
            self.assertIsNone(found["met"])
            self.assertIn(status, found["why"])
            self.assertNotIn("ratio", found)

    def test_without_ours_nothing_is_met(self):
        ways = {"ours": {"status": "failed", "why": "exit 1", "samples": [], "medians": {}},
                "rival": way([9.0])}
        self.assertIsNone(stats.judge(bar("wall", 1.0, ["rival"]), "ours", ways)["met"])

    def test_memory_counts_by_the_worst_run(self):
        ways = {"ours": way([1.0, 1.0, 1.0], rss=[10, 10, 30])}
        self.assertTrue(stats.judge(bar("rss", 30), "ours", ways)["met"])
        self.assertFalse(stats.judge(bar("rss", 29), "ours", ways)["met"])

    def test_disk_held_is_compared_with_the_image(self):
        ways = {"ours": way([1.0, 1.0], held=[50, 104], size=[100, 100])}
        self.assertEqual(stats.judge(bar("held over size", 1.02), "ours", ways)["ratio"], 1.04)
        self.assertFalse(stats.judge(bar("held over size", 1.02), "ours", ways)["met"])
        self.assertTrue(stats.judge(bar("held over size", 1.04), "ours", ways)["met"])

    def test_what_was_not_measured_is_not_met(self):
        found = stats.judge(bar("written", 0), "ours", {"ours": way([1.0], written=[None])})
        self.assertIsNone(found["met"])

    def test_at_least(self):
        ways = {"ours": way([1.0, 1.0, 1.0], encode_share=[0.94, 0.9, 0.99])}
        found = stats.judge(bar("encode_share", 0.95, least=True), "ours", ways)
        self.assertEqual((found["ours"], found["met"]), (0.94, False))
        self.assertTrue(stats.judge(bar("encode_share", 0.94, least=True), "ours", ways)["met"])

    def test_a_quick_run_judges_nothing(self):
        ways = {"ours": way([1.0]), "rival": way([2.0])}
        self.assertIsNone(stats.judge(bar("wall", 1.0, ["rival"]), "ours", ways, decide=False)["met"])

    def test_rounds_go_forward_and_backward(self):
        self.assertEqual([stats.order("abc", number) for number in (0, 1, 2)],
                         [["a", "b", "c"], ["c", "b", "a"], ["a", "b", "c"]])


class Definitions(unittest.TestCase):
    def test_bars_name_ways_of_their_row(self):
        for row in main.ROWS.values():
            names = {one.name for one in (*row.rivals, *row.floors)}
            for one in row.bars:
                self.assertLessEqual(set(one.against), names, row.name)
            for floor in row.floors:
                self.assertLessEqual(set(floor.parts), {rival.name for rival in row.rivals}, row.name)
                self.assertGreater(floor.wall(*range(1, len(floor.parts) + 1)), 0)

    def test_one_name_in_a_sitting_is_one_way(self):
        seen = {}
        for row in main.ROWS.values():
            self.assertIn(row.sitting, main.SITTINGS)
            for one in (row.ours, *row.rivals):
                self.assertEqual(seen.setdefault((row.sitting, one.name), one), one)

    def test_floors_are_what_their_formula_says(self):
        floors = {row.name: row.floors[0] for row in main.ROWS.values() if row.floors}
        self.assertEqual(floors["noranges-verified-floor"].wall(8, 14, 9), 23)
        self.assertEqual(floors["ranges-verified-floor"].wall(8, 3, 2, 9), 12)
        self.assertEqual(floors["ranges-off-floor"].wall(8, 3, 9), 12)


def a_record(**more):
    ways = {"ours": way([1.0, 2.0, 3.0], cpu=[1.0, 1.0, 1.0]), "pipe": way([4.0, 4.0, 8.0])}
    ways["pipe"]["title"] = "a | b"
    judged = stats.judge(bar("wall", 0.75, ["pipe"]), "ours", ways)
    return {"schema": records.SCHEMA, "date": "2026-01-02T03:04:05Z", "quick": False, "rounds": 3,
            "machine": {"cpu": "AMD EPYC", "cores": 2, "memory_bytes": 24 << 30, "kernel": "6.1"},
            "versions": {"snapcow": "snapcow 0.1.0", "snapcow_commit": "abc"}, "scale": [],
            "sittings": {"none": {"ways": ways}},
            "rows": [{"name": "none", "work": "a copy", "sitting": "none", "ours": "ours",
                      "bars": [judged]}]} | more


class Tables(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def write(self, record, name="one.json"):
        records.write(record, self.folder / name)
        return self.folder / name

    def test_numbers(self):
        for value, text in ((0, "0"), (0.01234, "0.012"), (1.2345, "1.23"), (12.345, "12.3"),
                            (123.45, "123"), (12345.6, "12346"), (None, "")):
            self.assertEqual(table.number(value), text)

    def test_a_line_for_each_bar(self):
        text = table.render([self.write(a_record())])
        self.assertIn("| a copy | wall | 2.00 s | 4.00 s, a \\| b | 0.375 | ≤ 0.75 × | met |", text)
        self.assertIn("2 cores of an AMD EPYC", text)

    def test_memory_that_cannot_be_seen_is_shown_as_a_bound(self):
        record = a_record()
        record["sittings"]["none"] |= {"rss_floor": 26 << 20, "ways": {"cat": way([1.0], rss=[26 << 20]),
                                                                         "big": way([1.0], rss=[27 << 20])}}
        text = table.render([self.write(record)])
        self.assertIn("| ≤ 26.0 |", text)
        self.assertIn("| 27.0 |", text)

    def test_a_later_record_replaces_rows(self):
        later = a_record()
        later["rows"][0]["work"] = "a later copy"
        other = dict(a_record()["rows"][0], name="other", work="another")
        first = a_record(rows=[*a_record()["rows"], other])
        text = table.render([self.write(first), self.write(later, "two.json")])
        self.assertIn("| a later copy |", text)
        self.assertIn("| another |", text)
        self.assertNotIn("| a copy |", text)

    def test_what_is_no_record_is_refused(self):
        for name, content in (("a", "not JSON"), ("b", "[]"), ("c", '{"schema": "other"}'),
                              ("d", json.dumps({"schema": records.SCHEMA}))):
            (self.folder / name).write_text(content)
            self.assertRaisesRegex(BenchError, "no .*record", records.read, self.folder / name)
        self.assertRaisesRegex(BenchError, "No such file", records.read, self.folder / "absent")

    def test_the_readme_is_written_and_checked(self):
        readme, folder = self.folder / "README.md", self.folder / "benches/record"
        readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
        with mock.patch.multiple(table, README=readme, REPO=self.folder), \
                mock.patch.object(records, "FOLDER", folder):
            self.assertIn("there is none", table.check_readme())
            records.write(a_record(), folder / "one.json")
            self.assertRaisesRegex(BenchError, "names no record", table.check_readme)
            table.write_readme([str(folder / "one.json")])
            self.assertIn("one.json", table.check_readme())
            text = readme.read_text()
            self.assertTrue(text.startswith("before\n") and text.endswith("\nafter\n"))
            readme.write_text(text.replace("0.375", "0.374"))
            self.assertRaisesRegex(BenchError, "differs", table.check_readme)
            readme.write_text("no markers")
            self.assertRaisesRegex(BenchError, "needs one line", table.check_readme)


class Measuring(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_children_of_a_pipeline_count(self):
        burn = "python3 -c 'import time; x = bytearray(90 << 20)\nwhile time.process_time() < 0.2: pass'"
        sample, text = meter.run(f"{burn} | cat; {burn} >/dev/null & wait; echo done", self.folder,
                                 dict(os.environ))
        self.assertEqual(text, "done\n")
        self.assertGreaterEqual(sample["cpu"], 0.4)
        self.assertGreaterEqual(sample["rss"], 90 << 20)

    def test_disk_held_has_files_without_a_name(self):
        sample, _ = meter.run(
            "exec 3>gone; rm gone; head -c 3000000 /dev/zero >&3; head -c 2000000 /dev/zero >kept; sleep 0.3",
            self.folder, dict(os.environ))
        self.assertGreaterEqual(sample["held"], 5_000_000)

    def test_a_failing_step_fails_the_script(self):
        for script in ("false | cat", "false; true", "echo $UNSET_NAME"):
            self.assertRaises(meter.Failed, meter.run, script, self.folder, dict(os.environ))

    def test_a_rest_of_a_script_does_not_live_on(self):
        _, text = meter.run("sleep 60 & echo $!", self.folder, dict(os.environ))
        status = pathlib.Path(f"/proc/{text.strip()}/stat")
        end = time.monotonic() + 20
        while status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z":
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)


class Work(unittest.TestCase):
    def setUp(self):
        # Holes need a file system that has them: tmpfs has.
        shm = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(dir=shm)))

    def sparse(self):
        path = self.folder / "sparse"
        with open(path, "wb") as file:
            for at in (1, 7, 8, 30):
                file.seek(at * 1_000_003)
                file.write(os.urandom(1_500_000))
            file.truncate(40_000_000)
        return path

    def test_two_processes_copy_all_extents(self):
        source, target = self.sparse(), self.folder / "target"
        copy_extents.both(source, target)
        self.assertTrue(copy_extents.same(source, target))
        proof.extents(source, target)
        with open(target, "r+b") as file:
            file.seek(2_000_000)
            file.write(b"another")
        self.assertFalse(copy_extents.same(source, target))
        self.assertRaises(proof.Differs, proof.extents, source, target)

    def test_halves_have_about_as_many_bytes(self):
        first, second = copy_extents.halves([(0, 10, 0), (20, 10, 10), (40, 10, 20), (60, 10, 30)])
        self.assertEqual((len(first), len(second)), (2, 2))
        self.assertEqual(copy_extents.halves([]), ([], []))

    def test_a_scattered_disk_is_as_full_as_asked(self):
        (self.folder / "files").mkdir()
        for name in map(str, range(400)):
            (self.folder / "files" / name).write_bytes(os.urandom(10_000))
        self.enterContext(mock.patch.object(workload, "ROOTS", (str(self.folder / "files"),)))
        self.assertRaisesRegex(BenchError, "only 3 MiB", workload.choose, 5 << 20)
        disk = workload.scattered(self.folder / "disk", 1 << 40, 3 << 20)
        self.assertEqual((disk.len, disk.data), (1 << 40, 3 << 20))
        again = workload.scattered(self.folder / "again", 1 << 40, 3 << 20)
        self.assertTrue(copy_extents.pieces(os.open(disk.path, os.O_RDONLY)) ==
                        copy_extents.pieces(os.open(again.path, os.O_RDONLY)))

    def test_a_disk_that_has_lived_keeps_what_was_deleted(self):
        files = self.folder / "files"
        files.mkdir()
        for number in range(24):
            (files / f"{number}").write_bytes(f"file {number:03}\n".encode() * 20_000)
        (files / 'with "marks"').write_bytes(b"kept whatever its turn\n" * 1000)
        self.enterContext(mock.patch.object(workload, "ROOTS", (str(files),)))
        disk = workload.os_disk(self.folder / "disk.raw", 32 << 20, 1 << 20, 3 << 20)
        whole, trimmed = disk.path.read_bytes(), disk.trimmed.read_bytes()
        self.assertEqual(len(whole), len(trimmed))
        deleted = disk.about["deleted_files"]
        self.assertTrue(10 < deleted < 22, disk.about)
        there = [line for line in (b"file %03d\n" % number for number in range(24)) if line in whole]
        self.assertGreater(len(there), 20)
        self.assertEqual(sum(line not in trimmed for line in there), deleted)
        self.assertIn(b"kept whatever", trimmed)
        # What is there is as it was.
        self.assertTrue(all(new in (old, 0) for old, new in zip(whole[::97], trimmed[::97])))

    def test_free_blocks_are_read_as_dumpe2fs_writes_them(self):
        listing = "Block size:               1024\n\n  Free blocks: \n  Free blocks: 3, 8-10\n"
        self.assertEqual(list(aged.free_ranges(listing, 512)), [(3584, 4608), (8704, 11776)])

    def test_a_disk_made_apart_is_the_same(self):
        disk = workload.apart(workload.zeros, self.folder / "disk", 2 << 20)
        self.assertEqual((disk.len, disk.data, disk.path.read_bytes()), (2 << 20, 2 << 20, bytes(2 << 20)))
        self.assertRaisesRegex(BenchError, "no workload", workload.apart, workload.make, "other",
                               self.folder, True)
        self.assertRaisesRegex(BenchError, "could not be made", workload.apart, workload.zeros,
                               self.folder / "absent/disk", 1 << 20)

    def test_what_does_not_fit_is_refused(self):
        self.assertRaisesRegex(BenchError, "GiB", workload.need, self.folder, 1 << 60, "a disk")
        self.assertRaisesRegex(BenchError, "memory", workload.need_memory, 1 << 60, "a disk")

    def test_paths_of_this_machine_do_not_go_into_a_record(self):
        home = os.path.expanduser("~")
        self.assertEqual(machine.scrub(f"{self.folder}/out {home}/x", {str(self.folder): "$TMPFS"}),
                         "$TMPFS/out ~/x")

    def test_the_encode_figure_is_that_of_the_worst_file_route(self):
        path, sample = self.folder / "bench.json", {}
        routes = [{"route": name, "taken": taken, "compression": "zlib-1", "encode_share_of_bare_loop": share}
                  for name, taken, share in (("a", "direct", 0.97), ("b", "direct", 0.96),
                                             ("c", "spool", 0.5), ("d", "direct", None))]
        path.write_text(json.dumps({"schema": encode.SCHEMA, "routes": routes}))
        encode.take(path, sample)
        self.assertEqual(sample["encode_share"], 0.96)
        for text in ('{"schema": "another"}', "", json.dumps({"schema": encode.SCHEMA, "routes": []})):
            path.write_text(text)
            self.assertRaises(meter.Failed, encode.take, path, {})

    def test_names_of_machines_are_short(self):
        self.assertEqual(machine.short_name("AMD EPYC", 2), "amd-epyc-2")
        self.assertEqual(machine.short_name("Intel(R) Xeon(R) CPU E5-2670 v3 @ 2.30GHz", 8),
                         "intel-xeon-e5-2670-8")


if __name__ == "__main__":
    unittest.main()
