"""A disk that has lived: most of what its file system once held was deleted, and is still there."""
import os
import subprocess

from model import BenchError

MIB = 1 << 20


def program(words, script=None):
    """Runs a program of e2fsprogs; what it printed."""
    try:
        done = subprocess.run(words, input=script or "", capture_output=True, text=True,
                              env=os.environ | {"LC_ALL": "C", "E2FSPROGS_FAKE_TIME": "1700000000",
                                                "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"})
    except FileNotFoundError as error:
        raise BenchError(f"{error.filename} is not installed; on Debian: apt-get install e2fsprogs") \
            from None
    if done.returncode:
        raise BenchError(f"{words[0]} failed: {done.stderr.strip()[-400:]}")
    return done.stdout


def delete(path, offset, names):
    """Deletes files of the ext4 file system at `offset`, as a kernel does: their contents stay. How many there were.

    e2fsck has nothing against what is left.
    """
    where = f"{path}?offset={offset}"
    # A name that the script's language cannot say is not deleted.
    names = [name for name in names if not set(name) & set('"\n\\')]
    program(["debugfs", "-w", "-f", "-", where], "".join(f'rm "/{name}"\n' for name in names))
    program(["e2fsck", "-fn", where])
    return len(names)


def free_ranges(listing, offset):
    """Byte ranges of the disk that dumpe2fs lists as free blocks, in order."""
    size = 0
    for line in listing.splitlines():
        words = line.split()
        if line.startswith("Block size:"):
            size = int(words[-1])
        if line.startswith("  Free blocks: "):
            for run in line.removeprefix("  Free blocks: ").replace(" ", "").split(","):
                first, _, last = run.partition("-")
                if first:
                    yield offset + int(first) * size, offset + (int(last or first) + 1) * size


def trimmed(path, offset, target):
    """A sparse copy with zeros in place of the free blocks, by dumpe2fs: the yardstick. Bytes that were free data."""
    ranges = [*free_ranges(program(["dumpe2fs", f"{path}?offset={offset}"]), offset)]
    if not ranges:
        raise BenchError("dumpe2fs lists no free block")
    with open(path, "rb") as disk, open(target, "wb") as copy:
        end = os.fstat(disk.fileno()).st_size
        copy.truncate(end)
        at = 0
        for start, stop in [*ranges, (end, end)]:
            copy_data(disk.fileno(), copy.fileno(), at, start)
            at = stop
    return (path.stat().st_blocks - target.stat().st_blocks) * 512


def copy_data(source, target, start, end):
    """Copies what is no hole."""
    while start < end:
        try:
            data = os.lseek(source, start, os.SEEK_DATA)
        except OSError:
            return
        until = min(end, os.lseek(source, data, os.SEEK_HOLE))
        while data < until:
            part = os.pread(source, min(MIB, until - data), data)
            os.pwrite(target, part, data)
            data += len(part)
        start = max(until, data)
