"""The disks: a real ext4 file system with files of this machine, dense zeros, and very sparse files."""
import functools
import hashlib
import json
import os
import pathlib
import random
import shutil
import stat
import subprocess
import sys

import aged
from model import BenchError

MIB = 1 << 20
GIB = 1 << 30
PARTITION = MIB
# One huge file would be more of the disk than it is of an operating system.
FILE_MAX = 64 * MIB
ROOTS = ("/usr", "/opt", "~/.cargo/registry", "~/.rustup", "/var/lib")
UUID = "5eed5eed-5eed-5eed-5eed-5eed5eed5eed"


class Disk:
    """A raw disk; `about` says what is on it, for the record."""

    def __init__(self, path, about):
        self.path = path
        # The same with zeros where its file system has freed blocks; there only where that was asked for.
        self.trimmed = path.with_suffix(".trimmed")
        self.len = path.stat().st_size
        self.data = path.stat().st_blocks * 512
        self.about = about | {"virtual_bytes": self.len, "data_bytes": self.data}

    def unlink(self):
        self.path.unlink()
        self.trimmed.unlink(missing_ok=True)


# --- files of this machine ----------------------------------------------------------------------

@functools.cache
def files_below(root):
    """(path, size) of the regular files that may be taken, in the order of their turn.

    The turn comes by the hash of the path: whatever is taken first is a fair sample of the tree, and
    the same one wherever the same packages are installed.
    """
    found = []
    for at, folders, names in os.walk(root):
        folders.sort()
        for name in names:
            path = os.path.join(at, name)
            try:
                status = os.lstat(path)
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode) and 0 < status.st_size <= FILE_MAX and \
                    os.access(path, os.R_OK):
                found.append((path, status.st_size))
    return sorted(found, key=lambda one: hashlib.sha256(os.fsencode(one[0])).digest())


def choose(size):
    """Files of together about `size` bytes, and what was taken."""
    taken, listed, shares, left = [], "", {}, size
    for root in ROOTS:
        for path, length in files_below(os.path.expanduser(root)):
            if length > left:
                continue
            taken.append(path)
            listed += f"{path} {length}\n"
            left -= length
            count, total = shares.get(root, (0, 0))
            shares[root] = count + 1, total + length
            if left < 4096:
                break
        # The rest is smaller than most files: near enough.
        if left < size // 100:
            break
    if left >= size // 100:
        raise BenchError(
            f"{', '.join(ROOTS)} have only {(size - left) // MIB} MiB of readable files of at most "
            f"{FILE_MAX // MIB} MiB; the workload needs {size // MIB}: try --quick")
    listed = listed.replace(os.path.expanduser("~"), "~")
    return taken, {"files": len(taken), "file_bytes": size - left,
                   "from": {root: {"files": count, "bytes": total}
                            for root, (count, total) in shares.items()},
                   "list_sha256": hashlib.sha256(os.fsencode(listed)).hexdigest()}


def os_bytes(taken):
    """The files' contents one after the other, for ever, a MiB at a time."""
    rest = b""
    while True:
        for path in taken:
            try:
                with open(path, "rb") as file:
                    while part := file.read(MIB - len(rest)):
                        rest += part
                        if len(rest) == MIB:
                            yield rest
                            rest = b""
            except OSError:
                continue


def apart(make, *arguments):
    """A disk made by a child process.

    A process begins with the peak memory of the one that started it: the lists of files would be
    seen in the figures of every small rival.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            try:
                disk = make(*arguments)
                text = json.dumps({"path": str(disk.path), "about": disk.about})
            except BenchError as error:
                text = json.dumps({"error": str(error)})
            with os.fdopen(writer, "w") as pipe:
                pipe.write(text)
            status = 0
        except Exception as error:
            print(f"bench: {error}", file=sys.stderr)
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise BenchError("the disk could not be made")
    answer = json.loads(text)
    if "error" in answer:
        raise BenchError(answer["error"])
    return Disk(pathlib.Path(answer["path"]), answer["about"])


# --- disks --------------------------------------------------------------------------------------

def make(name, tmpfs, quick):
    """The workload of this name as a file on tmpfs."""
    kind, _, size = name.partition(":")
    path = tmpfs / "disk.raw"
    if kind == "os":
        return os_disk(path, *(256 * MIB, 60_000_000) if quick else (10 * GIB, 1_600_000_000))
    if kind == "aged":
        sizes = (256 * MIB, 20_000_000, 50_000_000) if quick else (10 * GIB, 1_200_000_000, 3_200_000_000)
        return os_disk(path, *sizes)
    if kind == "zeros":
        return zeros(path, 256 * MIB if quick else 8 * GIB)
    if kind == "scattered":
        return scattered(path, int(size), (32 if quick else 512) * MIB)
    raise BenchError(f"no workload {name}")


def most(name, quick):
    """Bytes of tmpfs that the workload takes at most, while it is made included."""
    kind = name.partition(":")[0]
    if quick:
        return 300 * MIB
    # The files are copied before the file system is made of them.
    return {"os": 4 * GIB, "aged": 10 * GIB, "zeros": 8 * GIB + 16 * MIB, "scattered": 520 * MIB}[kind]


def os_disk(path, length, size, deleted=0):
    """A partition table and an ext4 file system with files of this machine, and with `deleted` bytes of files that
    were there."""
    taken, about = choose(size + deleted)
    content = path.with_name("content")
    shutil.rmtree(content, ignore_errors=True)
    try:
        for source in taken:
            copy = content / source.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(source, copy)
            except FileNotFoundError:
                # Something is being installed or removed meanwhile.
                about["vanished"] = about.get("vanished", 0) + 1
                continue
            os.utime(copy, (0, 0))
        with open(path, "wb") as disk:
            disk.truncate(length)
        made = subprocess.run(
            ["mkfs.ext4", "-q", "-F", "-d", content, "-U", UUID, "-E",
             f"offset={PARTITION},hash_seed={UUID},root_owner=0:0", path,
             f"{(length - 4 * PARTITION) >> 10}k"],
            env=os.environ | {"E2FSPROGS_FAKE_TIME": "1700000000",
                              "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if made.returncode:
            raise BenchError(f"mkfs.ext4 failed: {made.stderr.strip()}")
    except FileNotFoundError as error:
        raise BenchError(f"{error.filename} is not installed; on Debian: apt-get install e2fsprogs") \
            from None
    finally:
        shutil.rmtree(content, ignore_errors=True)
    with open(path, "r+b") as disk:
        disk.write(partition_table(length))
    if deleted:
        names = [source.lstrip("/") for source in beyond(taken, size)]
        about |= {"deleted_files": aged.delete(path, PARTITION, names),
                  "freed_data_bytes": aged.trimmed(path, PARTITION, path.with_suffix(".trimmed"))}
    return Disk(path, {"kind": "partition table, ext4 with files of this machine"} | about)


def beyond(taken, size):
    """The files behind the first `size` bytes of them; their turn is no order of places on a disk."""
    for path in taken:
        if size <= 0:
            yield path
        try:
            size -= os.path.getsize(path)
        except FileNotFoundError:
            continue


def partition_table(length):
    """A master boot record with one partition of type Linux."""
    sector = bytearray(512)
    sector[450] = 0x83
    sector[454:458] = (PARTITION // 512).to_bytes(4, "little")
    sector[458:462] = ((length - 4 * PARTITION) // 512).to_bytes(4, "little")
    sector[510:] = b"\x55\xaa"
    return sector


def zeros(path, length):
    """Zeros that are really there: a hole would not have to be read."""
    with open(path, "wb", buffering=0) as disk:
        part = bytes(MIB)
        for _ in range(length // MIB):
            disk.write(part)
    return Disk(path, {"kind": "zeros, all of them written"})


def scattered(path, length, size, seed=1):
    """A sparse file with contents of files in places of 1 MiB, spread evenly by a seeded choice."""
    taken, about = choose(min(size, 64 * MIB)) if size else ([], {})
    places = length // MIB
    # random.sample draws from a range without making a list of it.
    chosen = sorted(random.Random(seed).sample(range(places), size // MIB))
    with open(path, "wb", buffering=0) as disk:
        disk.truncate(length)
        for place, part in zip(chosen, os_bytes(taken)):
            disk.seek(place * MIB)
            disk.write(part)
        if not chosen:
            # A disk without any data is a case of its own; a first and a last sector are not.
            for at in (0, length - 512):
                disk.seek(at)
                disk.write(b"\x01" * 512)
    return Disk(path, {"kind": f"sparse, {size // MIB} places of 1 MiB with contents of files"} | about)


# --- room ---------------------------------------------------------------------------------------

def need(folder, size, what):
    """Refuses where a folder (or the memory, for tmpfs) cannot take so much more."""
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize
    if free < size:
        raise BenchError(f"{what} needs {size / GIB:.1f} GiB in {folder}, where {free / GIB:.1f} are "
                         "free: name another folder (--tmpfs, --folder) or try --quick")


def need_memory(size, what):
    text = pathlib.Path("/proc/meminfo").read_text()
    free = next(int(line.split()[1]) << 10 for line in text.splitlines()
                if line.startswith("MemAvailable:"))
    # The programs want some, too.
    if free < size + GIB:
        raise BenchError(f"{what} needs {size / GIB:.1f} GiB of memory for files on tmpfs and 1 GiB "
                         f"beside; {free / GIB:.1f} GiB are available: try --quick")
