"""Whether an output is what it should be: QEMU's own judgement, or a comparison byte by byte."""
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


class Differs(Exception):
    """The output is not equal to the source, or is no sound image."""


def qcow2(raw, image):
    """`qemu-img check` and `qemu-img compare`."""
    asked(["qemu-img", "check", "-f", "qcow2", image], "qemu-img check finds faults")
    asked(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, image],
          "qemu-img compare finds a difference")
    return "qemu-img check, qemu-img compare with the raw disk"


def extents(raw, copy):
    asked([sys.executable, "-B", HERE / "copy_extents.py", "--check", raw, copy],
          "the copied extents differ")
    return "extents compared with those of the raw disk"


def copy(source, target):
    asked(["cmp", "--", source, target], "the copy differs")
    return "cmp with the source of the copy"


def asked(command, what):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = " ".join(f"{done.stdout} {done.stderr}".split())
        raise Differs(f"{what}: {said[-400:]}")
