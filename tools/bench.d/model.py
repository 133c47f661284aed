"""What a comparison is made of: ways to do one piece of work, floors made from them, rows and bars."""
import dataclasses
import typing


class BenchError(Exception):
    """Something the user has to read: printed without a traceback."""

    def __init__(self, text, status=1):
        super().__init__(text)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to do the work: a bash script, measured as a whole with all that it starts.

    The script finds its world in variables, so that it is the same on every machine and stands in
    the record word for word: $RAW the raw disk, $BYTES its length, $OUT an empty folder for this
    run, $OURS an output of our own made beforehand, $SNAPCOW and $SNAPCOW_ISAL the programs, and
    for Glance $IMAGE, $GLANCE, $TOKEN_HEADER (a file) and the OS_* variables of the client; where
    the disk is a server's, $SERVER, and $MEMBER_PROJECT and $MEMBER_CLOUD of another project.
    """
    name: str
    title: str
    script: str
    # What it makes: "qcow2" ($OUT/image.qcow2), "image" (in Glance, its ID on the last line of the
    # output), "extents" ($OUT/extents), "copy" ($OUT/copy, of $OURS), or "" for nothing.
    makes: str = "qcow2"
    # Programs that must be there.
    needs: tuple[str, ...] = ()
    # The script's own clock ($OUT/clock, seconds) counts: leaves out the start of an interpreter
    # in a floor, which would make the floor easy to reach.
    own_clock: bool = False
    # What it makes is equal to the disk with zeros where the file system has freed blocks.
    trims: bool = False


@dataclasses.dataclass(frozen=True)
class Floor:
    """A time that nobody can beat, put together from the times of ways of the same round."""
    name: str
    title: str
    formula: str
    parts: tuple[str, ...]
    wall: typing.Callable[..., float]


@dataclasses.dataclass(frozen=True)
class Bar:
    """What is to be reached: `measure` of ours, as a ratio to a rival or (without one) in itself."""
    measure: str
    limit: float
    # Ways or floors; the best of them in this measure counts. Empty: an absolute limit.
    against: tuple[str, ...] = ()
    # At least instead of at most.
    least: bool = False


# No raw disk on disk: what the run holds there is no more than the finished image.
NO_RAW = Bar("held over size", 1.02)
NO_DISK = (Bar("written", 0), Bar("held", 0))
RSS = Bar("rss", 320 << 20)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the issue's tables. Rows with the same sitting are measured together."""
    name: str
    work: str
    sitting: str
    ours: Way
    rivals: tuple[Way, ...] = ()
    floors: tuple[Floor, ...] = ()
    bars: tuple[Bar, ...] = ()


@dataclasses.dataclass(frozen=True)
class Sitting:
    """What the rows of a sitting share."""
    name: str
    # "os", "aged", "zeros" or "scattered:VIRTUAL" (see workload.py).
    workload: str = "os"
    # Where $OUT lies: "tmpfs" or "disk".
    place: str = "tmpfs"
    # The variant of the lab's Glance that is asked, if any.
    glance: str = ""
    # Whether the disk is that of a running server ($SERVER), not an image.
    server: bool = False
    # The way that makes $OURS beforehand, if any.
    keep: str = ""


UNITS = {"wall": "s", "cpu": "s", "size": "MiB", "rss": "MiB", "written": "MiB", "held": "MiB",
         "held over size": "", "growth": "", "encode_share": ""}
