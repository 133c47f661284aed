"""The rows from Glance to Glance, in the lab of tools/openstack.

The pipes and the floors get their token for nothing, and none of them verifies a byte; the
documented procedure logs in by itself and verifies the source, as snapcow does.
"""
from model import NO_DISK, NO_RAW, RSS, Bar, Floor, Row, Sitting, Way

SNAPCOW = '"$SNAPCOW" convert -q --progress none --allow-duplicate'
FROM_TO = '"glance:$IMAGE" glance:snapcow-bench'
# Without the empty header curl asks first whether it may send, and waits for an answer.
CURL = 'curl -sSf -H @"$TOKEN_HEADER" -H Expect:'
SOURCE = '"$GLANCE/v2/images/$IMAGE/file"'

MANUAL = Way(
    "manual", "openstack image save, qemu-img convert -c (zstd), openstack image create",
    'openstack image save --file "$OUT/disk.raw" "$IMAGE"\n'
    'qemu-img convert -c -O qcow2 -o compression_type=zstd "$OUT/disk.raw" "$OUT/image.qcow2"\n'
    'openstack image create -f value -c id --disk-format qcow2 --container-format bare '
    '--file "$OUT/image.qcow2" snapcow-bench', "image", needs=("qemu-img", "openstack"))


def put(file):
    """Makes the record of an image and sends the file."""
    return (
        "id=$(cat /proc/sys/kernel/random/uuid)\n"
        f"{CURL} -o /dev/null -H 'Content-Type: application/json' -d "
        '"{\\"id\\":\\"$id\\",\\"name\\":\\"snapcow-bench\\",\\"disk_format\\":\\"qcow2\\",'
        '\\"container_format\\":\\"bare\\"}" "$GLANCE/v2/images"\n'
        f"{CURL} -o /dev/null -H 'Content-Type: application/octet-stream' -T {file} "
        '"$GLANCE/v2/images/$id/file"\n'
        'echo "$id"')


SEND = put('"$OUT/image.qcow2"')


def compress(options):
    return f'qemu-img convert -f raw -O qcow2 -c -m 16 -W {options}"$OUT/disk.raw" "$OUT/image.qcow2"\n'


# dd with 64 KiB is as quick as with 256 KiB or 1 MiB, and finds more to leave out.
def pipe(name, title, options):
    return Way(
        name, f"curl | dd conv=sparse, qemu-img convert -c -m 16 -W{title}, curl -T",
        f'{CURL} {SOURCE} | dd of="$OUT/disk.raw" bs=64K iflag=fullblock conv=sparse status=none\n'
        f"{compress(options)}{SEND}", "image", needs=("qemu-img", "curl"))


ZSTD = "-o compression_type=zstd "
PIPES = (pipe("pipe-zlib", "", ""), pipe("pipe-zstd", " (zstd)", ZSTD))
PIPE_NAMES = ("pipe-zlib", "pipe-zstd")  # The quicker one last: no other need be timed again.
# What somebody would do who knows that this store serves ranges.
PIPE_RANGES = Way(
    "pipe-two-ranges", "the same pipe, zstd, with two ranges at once",
    'half=$((BYTES / 131072 * 65536))\n'
    'truncate -s "$BYTES" "$OUT/disk.raw"\n'
    f'{CURL} -r "0-$((half - 1))" {SOURCE} | dd of="$OUT/disk.raw" bs=64K iflag=fullblock '
    'conv=sparse,notrunc status=none & first=$!\n'
    f'{CURL} -r "$half-" {SOURCE} | dd of="$OUT/disk.raw" bs=64K iflag=fullblock '
    'conv=sparse,notrunc seek="$((half / 65536))" status=none & second=$!\n'
    'wait "$first"; wait "$second"\n'
    f"{compress(ZSTD)}{SEND}", "image", needs=("qemu-img", "curl"))

GET = Way("get", "curl GET to /dev/null", f"{CURL} -o /dev/null {SOURCE}", "", needs=("curl",))
GET_RANGES = Way(
    "get-two-ranges", "curl GET of two ranges at once to /dev/null",
    'half=$((BYTES / 2))\n'
    f'{CURL} -o /dev/null -r "0-$((half - 1))" {SOURCE} & first=$!\n'
    f'{CURL} -o /dev/null -r "$half-" {SOURCE} & second=$!\n'
    'wait "$first"; wait "$second"', "", needs=("curl",))
PUT = Way("put", "curl PUT of our output", put('"$OURS"'), "image", needs=("curl",))
SHA = Way("sha512", "openssl dgst -sha512 of the raw disk in memory", 'openssl dgst -sha512 "$RAW"', "",
          needs=("openssl",))


def ours(name, options, trims=False):
    return Way(name, f"snapcow {options}".strip(), f"{SNAPCOW} {options} {FROM_TO}", "image", trims=trims)


OFF = "--verify-source off"
LARGE = "--memory 2GiB"

SITTINGS = (
    Sitting("glance-noranges", place="disk", glance="noranges", keep="ours"),
    Sitting("glance-ranges", place="disk", glance="ranges", keep="ours-off"),
    Sitting("glance-aged", workload="aged", place="disk", glance="ranges"),
)


def floors(store, gets):
    """The rows against what cannot be beaten, for one store; `gets` are the ways to download."""
    names = tuple(get.name for get in gets)
    best = names[0] if len(names) == 1 else f"min({', '.join(names)})"
    loose = Floor("get-put", "the best GET, then PUT of our output", f"{best} + put", (*names, "put"),
                  lambda *times: min(times[:-1]) + times[-1])
    strict = Floor("get-sha512-put", "the slower of the best GET and SHA-512, then PUT of our output",
                   f"max({best}, sha512) + put", (*names, "sha512", "put"),
                   lambda *times: max(min(times[:-2]), times[-2]) + times[-1])
    sitting = f"glance-{store}"
    where = "no-Range store" if store == "noranges" else "Range store"
    return (
        Row(f"{store}-off-floor", f"`{OFF} {LARGE}`, {where}", sitting,
            ours("ours-off-2g", f"{OFF} {LARGE}"), (*gets, PUT), (loose,),
            (Bar("wall", 1.12, ("get-put",)),)),
        Row(f"{store}-verified-floor", f"source verified, `{LARGE}`, {where}", sitting,
            ours("ours-2g", LARGE), (*gets, SHA, PUT), (strict,),
            (Bar("wall", 1.10, ("get-sha512-put",)),)),
    )


ROWS = (
    Row("verified-nodisk", "the same disk, Glance → Glance: source verified, no-Range store, `--compression zstd --spool-disk 0`",
        "glance-noranges", ours("ours-zstd-nodisk", "--compression zstd --spool-disk 0"), (MANUAL,),
        bars=(Bar("wall", 0.26, ("manual",)), Bar("cpu", 0.38, ("manual",)), *NO_DISK)),
    Row("verified", "source verified, no-Range store, all defaults", "glance-noranges", ours("ours", ""), (MANUAL,),
        bars=(Bar("wall", 0.25, ("manual",)), Bar("cpu", 0.38, ("manual",)), NO_RAW, RSS)),
    Row("noranges-off", f"`{OFF}`, no-Range store, defaults", "glance-noranges",
        ours("ours-off", OFF), PIPES, bars=(Bar("wall", 0.78, PIPE_NAMES), NO_RAW, RSS)),
    *floors("noranges", (GET,)),
    Row("ranges-off", f"`{OFF}`, Range store, defaults", "glance-ranges",
        ours("ours-off", OFF), (PIPES[-1], PIPE_RANGES),
        bars=(Bar("wall", 0.58, PIPE_NAMES[-1:]), NO_RAW, RSS)),
    *floors("ranges", (GET, GET_RANGES)),
    Row("trim", "a disk that has lived, most of its files deleted, Glance → Glance: `--trim`, Range store, defaults",
        "glance-aged", ours("ours-trim", "--trim", trims=True), (PIPES[-1], ours("ours-off", OFF)),
        bars=(Bar("wall", 0.30, PIPE_NAMES[-1:]), Bar("wall", 0.50, ("ours-off",)), NO_RAW, RSS)),
)
