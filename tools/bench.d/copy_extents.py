"""The floor of a copy: two processes copy the extents of a sparse file, packed, without looking.

    copy_extents.py SOURCE TARGET [CLOCK]      writes the seconds that it took to CLOCK
    copy_extents.py --check SOURCE TARGET      whether TARGET holds the extents of SOURCE
"""
import errno
import os
import sys
import time

CHUNK = 1 << 20


def extents(fd):
    """(offset, length) of all that is not a hole."""
    at, found = 0, []
    while True:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return found
            raise
        at = os.lseek(fd, begin, os.SEEK_HOLE)
        found.append((begin, at - begin))


def pieces(fd):
    """(offset, length, offset in the target), no piece longer than the buffer."""
    target, found = 0, []
    for offset, length in extents(fd):
        while length:
            part = min(length, CHUNK)
            found.append((offset, part, target))
            offset, length, target = offset + part, length - part, target + part
    return found


def halves(all_pieces):
    """Two lists of about as many bytes each."""
    total = sum(length for _, length, _ in all_pieces)
    cut, seen = 0, 0
    while seen < total // 2:
        seen += all_pieces[cut][1]
        cut += 1
    return all_pieces[:cut], all_pieces[cut:]


def copy(source, target, own_pieces):
    """One buffer for all: what is in it is still in the cache when it is written."""
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    for offset, length, to in own_pieces:
        done = 0
        while done < length:
            got = os.preadv(source, [view[:length - done]], offset + done)
            if got == 0:
                sys.exit("the source became shorter")
            put = 0
            while put < got:
                put += os.pwrite(target, view[put:got], to + done + put)
            done += got


def both(source_name, target_name):
    source = os.open(source_name, os.O_RDONLY)
    target = os.open(target_name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    first, second = halves(pieces(source))
    child = os.fork()
    if child == 0:
        try:
            copy(source, target, second)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    copy(source, target, first)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit("the second process failed")


def same(source_name, target_name):
    source, target = os.open(source_name, os.O_RDONLY), os.open(target_name, os.O_RDONLY)
    end = 0
    for offset, length, to in pieces(source):
        if os.pread(source, length, offset) != os.pread(target, length, to):
            return False
        end = to + length
    return os.fstat(target).st_size == end


if __name__ == "__main__":
    begun = time.monotonic()
    if sys.argv[1] == "--check":
        sys.exit(0 if same(*sys.argv[2:4]) else "the copy differs from the extents of the source")
    both(*sys.argv[1:3])
    if len(sys.argv) > 3:
        with open(sys.argv[3], "w") as clock:
            clock.write(str(time.monotonic() - begun))
