"""What the figures were taken on and with, and which programs are there."""
import datetime
import os
import pathlib
import platform
import re
import shutil
import socket
import subprocess

REPO = pathlib.Path(__file__).resolve().parent.parent.parent
INSTALL = {"qemu-img": "qemu-utils", "qemu-nbd": "qemu-utils", "nbdcopy": "libnbd-bin", "curl": "curl",
           "openssl": "openssl", "dd": "coreutils", "cmp": "diffutils", "mkfs.ext4": "e2fsprogs"}


class Programs:
    """Where the programs are that ways need; `why_not` says in words what is lacking."""

    def __init__(self, snapcow, isal, client=None):
        script = os.environ.get("QCOW2_TO_STDOUT") or shutil.which("qcow2-to-stdout.py")
        self.paths = {"snapcow": snapcow, "snapcow-isal": isal, "openstack": client,
                      "qcow2-to-stdout.py": script and os.path.abspath(script)}

    def why_not(self, name):
        if name == "snapcow bench":
            known = self.why_not("snapcow") is None and first_line(self.paths["snapcow"], "bench", "--help")
            return None if known else "this snapcow has no command `bench`"
        if name in self.paths:
            path = self.paths[name]
            if path and os.path.exists(path):
                return None
            return {
                "snapcow": f"{path} is not there: cargo build --release --locked, or --snapcow PATH",
                "snapcow-isal": f"{path} is not there" if path else
                                "no program with ISA-L: --snapcow-isal PATH",
                "openstack": "no openstack client: tools/openstack up --with-client",
                "qcow2-to-stdout.py": f"{path} is not there" if path else
                                      "not on the PATH, and QCOW2_TO_STDOUT is not set",
            }[name]
        if shutil.which(name):
            return None
        package = INSTALL.get(name)
        return f"{name} is not installed" + (f" (Debian: {package})" if package else "")

    def why_none(self, names):
        """The first reason why not all of them are there."""
        return next(filter(None, map(self.why_not, names)), None)


def first_line(*command):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              cwd=REPO)
    except OSError:
        return None
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None


def filesystem(folder):
    """Type of the file system that a folder lies in."""
    folder = os.path.realpath(folder)
    best = ("", "unknown")
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        _, at, kind = line.split()[:3]
        at = at.replace("\\040", " ")
        if (folder == at or folder.startswith(at.rstrip("/") + "/")) and len(at) >= len(best[0]):
            best = (at, kind)
    return best[1]


def cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.lower().startswith(("model name", "cpu model")):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def facts(folder, tmpfs):
    info = pathlib.Path("/proc/meminfo").read_text()
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    return {
        "cpu": cpu_model(), "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int(re.search(r"MemTotal:\s+(\d+)", info)[1]) << 10,
        "virtual_machine": bool(re.search(r"^flags.*\bhypervisor\b", flags, re.M)),
        "kernel": platform.release(),
        "filesystem": {"$FOLDER": filesystem(folder), "$TMPFS": filesystem(tmpfs)},
        "load_before": os.getloadavg()[0],
    }


def versions(programs):
    commit = first_line("git", "rev-parse", "--short=12", "HEAD")
    if commit and first_line("git", "status", "--porcelain", "--untracked-files=no"):
        commit += " and changes"
    found = {
        "snapcow": first_line(programs.paths["snapcow"], "--version"),
        "snapcow_commit": commit,
        "rustc": first_line("rustc", "--version"),
        "qemu-img": first_line("qemu-img", "--version"),
        "curl": first_line("curl", "--version"),
        "openssl": first_line("openssl", "version"),
        "nbdcopy": first_line("nbdcopy", "--version"),
        "openstack": programs.paths["openstack"] and first_line(programs.paths["openstack"], "--version"),
        "python": platform.python_version(),
    }
    return {name: text for name, text in found.items() if text}


def short_name(cpu, cores):
    """`amd-epyc-2`: enough to tell two records apart."""
    words = re.sub(r"\((r|tm)\)|@.*|\b(cpu|processor|with)\b", " ", cpu.lower())
    words = re.findall(r"[a-z0-9]+", words)[:4]
    return "-".join([*words, str(cores)])


def today():
    return datetime.datetime.now(datetime.timezone.utc)


def scrub(text, places):
    """Without paths of this machine, its name and its user's name. `places`: {path: placeholder}."""
    known = dict(places)
    known[str(REPO)] = "$REPO"
    known[os.path.expanduser("~")] = "~"
    for path in sorted(known, key=len, reverse=True):
        if len(path) > 1:
            text = text.replace(path, known[path])
    name = socket.gethostname()
    # A name like "vm" is a part of many words.
    return re.sub(rf"\b{re.escape(name)}\b", "$HOST", text) if len(name) > 3 else text
