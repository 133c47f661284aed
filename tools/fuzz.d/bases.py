"""Makes the disks that the targets `free_*` begin with, by real tools, and packs them into fuzz/bases.

Needs root, loop devices, e2fsprogs, xfsprogs, lvm2, util-linux and zstd. A packed disk is a zstd frame: its length (64 bits,
little-endian), then each page of 4 KiB that is not all zeros behind its number (32 bits). `known.txt` says how many bytes
of each disk are free, by dumpe2fs, xfs_db and arithmetic, never by snapcow; and which disks lie in which partitions."""
import contextlib
import os
import pathlib
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time

OUT = pathlib.Path(__file__).resolve().parents[2] / "fuzz" / "bases"
MIB = 1 << 20
PAGE = 4096
# These three let mkfs.xfs make filesystems below 300 MiB.
ENV = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin", LC_ALL="C", TEST_DIR="1", TEST_DEV="1", QA_CHECK_FS="1",
           SOURCE_DATE_EPOCH="1700000000")
UUID = "-U 0f0e0d0c-0b0a-4908-8706-050403020100"
# Name, MiB, options of mke2fs, how it is aged: mounted with these options, or not at all.
EXT = [
    ("ext4_1k", 24, "-t ext4 -b 1024 -O metadata_csum,64bit -J size=1", ""),
    ("ext4_4k", 32, "-t ext4 -b 4096 -g 2048", ""),
    ("ext4_32bit", 20, "-t ext4 -b 1024 -O ^64bit,metadata_csum,^flex_bg -J size=1", ""),
    ("ext4_uninit", 64, "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,^64bit -J size=1", ""),
    ("ext4_nosum", 20, "-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg,^flex_bg -J size=1", ""),
    ("ext4_metabg", 32, "-t ext4 -b 1024 -O meta_bg,^resize_inode -g 1024 -J size=1", ""),
    ("ext4_bigalloc", 32, "-t ext4 -b 1024 -O bigalloc -C 8192 -J size=1", ""),
    ("ext4_mmp", 16, "-t ext4 -b 1024 -O mmp,^has_journal,sparse_super2,^resize_inode,metadata_csum_seed", None),
    ("ext4_new", 64, "-t ext4 -b 1024 -O metadata_csum,orphan_file,quota -J size=1", None),
    ("ext3", 20, "-t ext3 -b 1024 -J size=1", ""),
    ("ext2", 16, "-t ext2 -b 1024", ""),
    ("ext2_rev0", 8, "-t ext2 -b 1024 -r 0", None),
]
# The same for copies taken while they are mounted, whose journals need a replay.
CRASHED = [
    ("ext4_crash", 24, "-t ext4 -b 1024 -O metadata_csum,64bit -J size=1", "commit=1"),
    ("ext4_crash_v1", 20, "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,^64bit -J size=1", "commit=1,journal_checksum"),
    ("ext3_crash", 20, "-t ext3 -b 1024 -J size=1", "commit=1,data=journal"),
]
# Name, MiB, options of mkfs.xfs, how many files it is aged with. Kernels of today do not mount version 4.
# The log of the one with 1 KiB blocks is begun anew by xfs_repair, which leaves the other form of an empty log.
XFS = [
    ("xfs5_4k", 64, "-b size=4096 -d agcount=2 -m rmapbt=1,reflink=1", 120),
    ("xfs5_1k", 48, "-b size=1024 -d agcount=2 -m rmapbt=0,reflink=0", 420),
    ("xfs5_new", 64, "-b size=4096 -d agcount=4 -m rmapbt=0,reflink=0", 0),
    ("xfs4", 48, "-b size=1024 -d agcount=2 -m crc=0,finobt=0", 0),
    ("xfs4_4k", 64, "-b size=4096 -d agcount=3 -m crc=0,finobt=0 -l lazy-count=0", 0),
]
# Where the partitions of the disks with tables begin is known by their tables only, so they are put together when read.
GPT = ["", "", "ext4_1k", "xfs5_1k", "pv", "swap"]
MBR = ["ext2", "", "swap", "", "ext3"]
LVM_CONFIG = (
    'devices {{ filter = [ {filter} "r|.*|" ] use_devicesfile = 0 hints = "none" scan_lvs = 0 }} '
    "global {{ use_lvmpolld = 0 use_lvmlockd = 0 wait_for_locks = 1 }} "
    "activation {{ udev_sync = 0 udev_rules = 0 monitoring = 0 }} backup {{ backup = 0 archive = 0 }}")


def run(words, stdin=None, good=(0,)):
    """What a command prints; its words have no spaces, if it is one string."""
    words = words.split() if isinstance(words, str) else [str(word) for word in words]
    done = subprocess.run(words, input=stdin, env=ENV, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode not in good:
        sys.exit(f"bases: {' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def image(path, mib):
    path.unlink(missing_ok=True)
    with open(path, "wb") as file:
        file.truncate(mib * MIB)
    return path


@contextlib.contextmanager
def mounted(path, options):
    at = path.with_suffix(".mnt")
    at.mkdir(exist_ok=True)
    run(["mount", "-o", ",".join(filter(None, ["loop", options])), path, at])
    try:
        yield at
    finally:
        for _ in range(50):
            if subprocess.run(["umount", at], env=ENV, stderr=subprocess.DEVNULL).returncode == 0:
                break
            time.sleep(0.1)


def age(folder, mib, seed, count=150):
    """Files of one byte each, which compress well; half of them deleted, so that there are many free runs."""
    random.seed(seed)
    room = mib * MIB // 3
    files = []
    while room > 0 and len(files) < count:
        length = random.choice([random.randrange(1000), random.randrange(3000), random.randrange(mib * MIB // 150)])
        path = folder / f"d{random.randrange(4)}" / f"f{len(files)}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([97 + len(files) % 3]) * length)
        room -= max(length, 1000)
        files.append(path)
    os.sync()
    for path in files[::2]:
        path.unlink()


def ext_free(path):
    """The lists of free blocks of all groups."""
    text = run(["dumpe2fs", path])
    block = int(re.search(r"^Block size: +(\d+)", text, re.M)[1])
    # Of clusters, the first block of the first and of the last one is told.
    cluster = re.search(r"^Cluster size: +(\d+)", text, re.M)
    each = int(cluster[1]) // block if cluster else 1
    free = 0
    for line in re.findall(r"^  Free blocks: (.+)$", text, re.M):
        for first, _, last in (run.partition("-") for run in line.split(", ")):
            free += int(last or first) - int(first) + each
    return free * block


def make_ext(folder, name, mib, options, how):
    path = image(folder / name, mib)
    # Few inodes, so that their tables are small.
    run(f"mke2fs -q -F {UUID} -N 512 -E lazy_itable_init=1,hash_seed={UUID[3:]} {options} {path}")
    if how is not None:
        with mounted(path, how) as at:
            age(at, mib, name)
    run(["e2fsck", "-fn", path])
    return path, ext_free(path)


def make_crashed(folder, name, mib, options, how):
    path, copy = image(folder / "live", mib), folder / name
    run(f"mke2fs -q -F {UUID} -N 512 -E lazy_itable_init=1,hash_seed={UUID[3:]} {options} {path}")
    with mounted(path, how) as at:
        age(at, mib, name)
        os.sync()
        # Committed by the timer, and not yet written back to where it belongs.
        for number in range(3):
            age_more = at / f"more{number}"
            age_more.mkdir()
            for file in range(12):
                (age_more / f"f{file}").write_bytes(b"m" * random.randrange(9000))
            for file in range(0, 12, 5):
                (age_more / f"f{file}").unlink()
            time.sleep(2.2)
        run(["cp", "--sparse=always", path, copy])
    if "needs_recovery" not in run(["dumpe2fs", "-h", copy]):
        sys.exit(f"bases: {name} has no journal to replay")
    whole = folder / "whole"
    run(["cp", "--sparse=always", copy, whole])
    run(["e2fsck", "-fy", whole], good=(0, 1))
    return copy, ext_free(whole)


def make_xfs(folder, name, mib, options, files):
    path = image(folder / name, mib)
    extra = "" if "crc=0" in options else "-m uuid=0f0e0d0c-0b0a-4908-8706-050403020100"
    run(f"mkfs.xfs -q -f {options} {extra} {path}")
    if files:
        with mounted(path, "") as at:
            age(at, mib, name, files)
    if "size=1024" in options and files:
        run(["xfs_repair", "-L", path])
    run(["xfs_repair", "-n", path])
    number = lambda words: int(run(["xfs_db", "-r", *words, path]).split(" = ")[1])
    groups = number(["-c", "sb 0", "-c", "p agcount"])
    free = sum(number(["-c", f"agf {group}", "-c", "p freeblks"]) for group in range(groups))
    return path, free * number(["-c", "sb 0", "-c", "p blocksize"])


def make_swap(folder, name, mib):
    path = image(folder / name, mib)
    run(f"mkswap -q {UUID} {path}")
    return path, mib * MIB - PAGE


@contextlib.contextmanager
def loop(path, start, length):
    device = run(["losetup", "-f", "--show", "-o", start, "--sizelimit", length, path]).strip()
    try:
        yield device
    finally:
        run(["losetup", "-d", device])


def lvm(devices, line):
    config = LVM_CONFIG.format(filter=" ".join(f'"a|^{device}$|",' for device in devices))
    words = line.split()
    words[1:1] = ["--config", config]
    if words[0].startswith(("lv", "vgc")):
        words[1:1] = ["--driverloaded", "n"]
    return run(words)


def fill(path, devices, starts, name, what):
    """Writes a file into a logical volume with 64 KiB stripes and extents of 1 MiB, behind 1 MiB."""
    data, at = what.read_bytes(), 0
    rows = lvm(devices, f"lvs --noheadings --separator ; -o stripes,seg_pe_ranges {name}").split("\n")
    with open(path, "r+b") as file:
        for stripes, ranges in (row.strip().split(";") for row in rows if row.strip()):
            parts = [re.fullmatch(r"(.+):(\d+)-(\d+)", part).groups() for part in ranges.split()]
            each = (int(parts[0][2]) - int(parts[0][1]) + 1) * MIB
            unit = each if int(stripes) == 1 else 64 << 10
            for step in range(each // unit):
                for device, first, _ in parts:
                    file.seek(starts[devices.index(device)] + MIB + int(first) * MIB + step * unit)
                    file.write(data[at:at + unit])
                    at += unit
    if at != len(data):
        sys.exit(f"bases: {name} takes {at} bytes instead of {len(data)}")


def make_pv(folder, name):
    """A disk that is a physical volume as a whole: an ext2 in two pieces, a swap area, a pool, room."""
    path = image(folder / name, 34)
    ext, ext_bytes = make_ext(folder, "in_lv", 8, "-t ext2 -b 1024", "")
    swap, swap_bytes = make_swap(folder, "swap_in_lv", 2)
    with loop(path, 0, 34 * MIB) as device:
        lvm([device], f"pvcreate -y --metadatacopies 2 {device}")
        lvm([device], f"vgcreate -s 1m vg0 {device}")
        create = "lvcreate -an -Zn -Wn -y"
        lvm([device], f"{create} -n root -l 4 vg0")
        lvm([device], f"{create} -n swap -l 2 vg0")
        lvm([device], "lvextend -l 8 vg0/root")
        lvm([device], "lvcreate -an -y --type cache-pool -n pool -l 8 vg0")
        fill(path, [device], [0], "vg0/root", ext)
        fill(path, [device], [0], "vg0/swap", swap)
    return path, ext_bytes + swap_bytes


def starts_of(path):
    return [int(at) * 512 for at in re.findall(r'"start": *(\d+)', run(["sfdisk", "--json", path]))]


def make_stripes(folder, name):
    """Two partitions of one volume group, with a striped swap area and an ext2 that lies on both."""
    path = image(folder / name, 34)
    run(["sfdisk", "--no-reread", "-q", path], "label: gpt\nsize=16MiB,type=lvm\nsize=16MiB,type=lvm\n")
    starts = starts_of(path)
    ext, ext_bytes = make_ext(folder, "in_lv", 8, "-t ext2 -b 1024", "")
    swap, swap_bytes = make_swap(folder, "swap_in_lv", 4)
    with loop(path, starts[0], 16 * MIB) as one, loop(path, starts[1], 16 * MIB) as two:
        both = [one, two]
        lvm(both, f"pvcreate -y {one}")
        lvm(both, f"pvcreate -y --metadatacopies 0 {two}")
        lvm(both, f"vgcreate -s 1m vg0 {one} {two}")
        create = "lvcreate -an -Zn -Wn -y"
        lvm(both, f"{create} -n swap -i 2 -I 64k -l 4 vg0")
        lvm(both, f"{create} -n root -l 3 vg0 {one}")
        lvm(both, f"lvextend -l 8 vg0/root {two}")
        fill(path, both, starts, "vg0/root", ext)
        fill(path, both, starts, "vg0/swap", swap)
    return path, ext_bytes + swap_bytes


def make_gpt(folder, name, made):
    """The table of a disk as of a server: firmware, ext4, XFS, LVM, swap."""
    path = image(folder / name, 118)
    run(["sfdisk", "--no-reread", "-q", path],
        "label: gpt\nsize=1MiB,type=21686148-6449-6E6F-744E-656564454649\nsize=2MiB,type=uefi\nsize=24MiB,type=linux\n"
        "size=48MiB,type=linux\nsize=34MiB,type=lvm\nsize=4MiB,type=swap\n")
    return path, *filled(path, GPT, made)


def make_mbr(folder, name, made):
    """Logical partitions, one of them empty."""
    path = image(folder / name, 64)
    run(["sfdisk", "--no-reread", "-q", path],
        "label: dos\nstart=1MiB,size=16MiB,type=83\nstart=17MiB,size=46MiB,type=5\nstart=18MiB,size=4MiB,type=82\n"
        "start=23MiB,size=1MiB,type=83\nstart=25MiB,size=20MiB,type=83\n")
    return path, *filled(path, MBR, made)


def filled(path, inside, made):
    """The free bytes of all that lies in the partitions, and what lies where."""
    places = [(what, start) for what, start in zip(inside, starts_of(path)) if what]
    return sum(made[what] for what, _ in places), "".join(f" {what}@{start}" for what, start in places)


def pack(path, out):
    packed = bytearray(struct.pack("<Q", path.stat().st_size))
    with open(path, "rb") as file:
        number = 0
        while page := file.read(PAGE):
            if any(page):
                packed += struct.pack("<I", number) + page.ljust(PAGE, b"\0")
            number += 1
    plain = path.with_suffix(".plain")
    plain.write_bytes(packed)
    run(["zstd", "-q", "-f", "--ultra", "-22", "--long=27", plain, "-o", out])
    return len(packed) // PAGE, out.stat().st_size


def main():
    OUT.mkdir(exist_ok=True)
    made, lines = {}, []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        jobs = [(name, make_ext, row) for name, *row in EXT] + [(name, make_crashed, row) for name, *row in CRASHED]
        jobs += [(name, make_xfs, row) for name, *row in XFS] + [("swap", make_swap, [4])]
        jobs += [("pv", make_pv, []), ("stripes", make_stripes, []), ("gpt", make_gpt, [made]), ("mbr", make_mbr, [made])]
        for name, make, row in jobs:
            path, made[name], *inside = make(folder, name, *row)
            pages, size = pack(path, OUT / f"{name}.zst")
            print(f"{name}: {path.stat().st_size} bytes, {made[name]} free, {pages} pages, {size} bytes packed", flush=True)
            lines.append(f"{name} {made[name]}{''.join(inside)}\n")
    (OUT / "known.txt").write_text("".join(lines))


if __name__ == "__main__":
    if shutil.which("zstd") is None or os.geteuid() != 0:
        sys.exit("bases: needs root and zstd")
    main()
