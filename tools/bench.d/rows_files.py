"""The rows from file to file, and what is measured on one program alone."""
from model import RSS, Bar, Row, Sitting, Way

SNAPCOW = '"$SNAPCOW" convert -q --progress none'
ISAL = '"$SNAPCOW_ISAL" convert -q --progress none'
FILES = '"$RAW" "$OUT/image.qcow2"'
QEMU = "qemu-img convert -f raw -O qcow2"
BEST = "-m 16 -W"


def ours(name, options, title=None, program=SNAPCOW, after="", needs=()):
    return Way(name, title or f"snapcow {options}".strip(), f"{program} {options} {FILES}{after}",
               needs=needs)


def qemu(name, options, after=""):
    return Way(name, f"qemu-img convert {options}".strip() + ("; sync" if after else ""),
               " ".join(f"{QEMU} {options} {FILES}".split()) + after, needs=("qemu-img",))


SITTINGS = (
    Sitting("none"),
    Sitting("durable", place="disk", keep="ours-durable"),
    Sitting("zlib"),
    Sitting("zstd"),
    Sitting("zeros", workload="zeros"),
    Sitting("encode"),
)

NBDCOPY = Way(
    "nbdcopy", "nbdcopy to qemu-nbd",
    'qemu-img create -q -f qcow2 "$OUT/image.qcow2" "$BYTES"\n'
    'nbdcopy --destination-is-zero --sparse=65536 --requests=16 -- "$RAW" '
    '[ qemu-nbd --cache=unsafe -e 8 -f qcow2 "$OUT/image.qcow2" ]',
    needs=("qemu-img", "nbdcopy", "qemu-nbd"))
TO_STDOUT = Way(
    "qcow2-to-stdout", "QEMU's qcow2-to-stdout.py",
    'python3 "$QCOW2_TO_STDOUT" "$RAW" >"$OUT/image.qcow2"', needs=("qcow2-to-stdout.py",))
TWO = Way(
    "copy", "two processes that copy the extents without looking",
    'python3 -ISB "$BENCH/copy_extents.py" "$RAW" "$OUT/extents" "$OUT/clock"', "extents",
    own_clock=True)
DD = Way(
    "dd", "dd oflag=direct of as many bytes",
    'dd if="$OURS" of="$OUT/copy" bs=4M oflag=direct conv=fsync status=none', "copy", needs=("dd",))
CAT = Way("cat", "cat FILE >/dev/null", 'cat "$RAW" >/dev/null', "")

ZLIB = (qemu("qemu-zlib", "-c"), qemu("qemu-zlib-best", f"-c {BEST}"))
ZLIB_BEST = ("qemu-zlib", "qemu-zlib-best")
ZSTD_OPTIONS = "-c -o compression_type=zstd"
ZSTD = (qemu("qemu-zstd", ZSTD_OPTIONS), qemu("qemu-zstd-best", f"{ZSTD_OPTIONS} {BEST}"))
ZSTD_BEST = ("qemu-zstd", "qemu-zstd-best")

ROWS = (
    Row("none", "10 GiB ext4 OS disk, file → file on tmpfs, no compression", "none",
        ours("ours-none", "--compression none"),
        (qemu("qemu-none", ""), qemu("qemu-none-best", BEST), TO_STDOUT, NBDCOPY, TWO),
        bars=(Bar("wall", 0.75, ("qemu-none", "qemu-none-best")), Bar("wall", 1.15, ("copy",)))),
    # Every one of them has its bytes on the disk when the clock stops.
    Row("durable", "the same onto a disk, durable", "durable",
        ours("ours-durable", "--compression none", "snapcow --compression none; sync",
             after='\nsync "$OUT/image.qcow2"'),
        (qemu("qemu-durable", f"{BEST} -t none", '\nsync "$OUT/image.qcow2"'),
         qemu("qemu-durable-buffered", BEST, '\nsync "$OUT/image.qcow2"'), DD),
        bars=(Bar("wall", 1.0, ("qemu-durable",)), Bar("wall", 1.1, ("dd",)),
              Bar("cpu", 0.6, ("qemu-durable",)))),
    Row("zlib", "the same on tmpfs, zlib, all defaults", "zlib", ours("ours-zlib", "", "snapcow"), ZLIB,
        bars=(Bar("wall", 0.26, ZLIB_BEST), Bar("size", 1.0, ZLIB_BEST), RSS)),
    Row("zlib-isal", "zlib, `isal` build, `--level fast`", "zlib",
        ours("ours-isal", "--level fast", "snapcow (isal) --level fast", ISAL, needs=("snapcow-isal",)),
        ZLIB, bars=(Bar("wall", 0.11, ZLIB_BEST), Bar("size", 1.02, ZLIB_BEST))),
    Row("zlib-small", "zlib, `--level small`", "zlib", ours("ours-small", "--level small"), ZLIB,
        bars=(Bar("wall", 0.42, ZLIB_BEST), Bar("size", 0.94, ZLIB_BEST))),
    Row("zstd", "zstd, default level", "zstd", ours("ours-zstd", "--compression zstd"), ZSTD,
        bars=(Bar("wall", 0.55, ZSTD_BEST), Bar("size", 1.035, ZSTD_BEST))),
    Row("zstd-3", "zstd at level 3", "zstd", ours("ours-zstd-3", "--compression zstd --level 3"), ZSTD,
        bars=(Bar("wall", 0.68, ZSTD_BEST), Bar("size", 1.0, ZSTD_BEST))),
    Row("zeros", "8 GiB of zeros, dense, on tmpfs", "zeros", ours("ours-zeros", "", "snapcow"), (CAT,),
        bars=(Bar("wall", 1.0, ("cat",)),)),
    Row("encode", "encode stage inside the engine, of the same codec's throughput in a bare loop", "encode",
        Way("ours-encode", "snapcow bench",
            '"$SNAPCOW" bench -q --size 2GiB --json "$OUT/bench.json" >/dev/null', "bench",
            needs=("snapcow bench",)),
        bars=(Bar("encode_share", 0.95, least=True),)),
)
