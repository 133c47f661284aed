"""What one script cost: time, memory, bytes written and disk held, of all processes that it started."""
import os
import pathlib
import resource
import signal
import subprocess
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")
TIMEOUT_S = 3600
# Often enough for a disk that fills at 1 GB/s, and rare enough not to be seen.
SAMPLE_S = 0.05


class Failed(Exception):
    """The script ended with an error; the text says which."""


def run(script, out, env, services=()):
    """Runs a bash script in `out`; (sample, standard output). Raises Failed."""
    before = sum(map(cpu_of, services))
    # In memory: what is printed is not to count as written to a disk.
    with os.fdopen(os.memfd_create("stdout"), "w+b") as stdout, \
            os.fdopen(os.memfd_create("stderr"), "w+b") as stderr:
        begin = time.monotonic()
        child = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script], cwd=out, env=env, stdin=subprocess.DEVNULL,
            stdout=stdout, stderr=stderr, start_new_session=True)
        watch = Watch(child.pid, out)
        try:
            watch.start()
            # The process stays readable in /proc until it has been waited for.
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            wall = time.monotonic() - begin
            # Of the shell and of all that it has waited for.
            written = field(f"/proc/{child.pid}/io", "write_bytes")
        finally:
            watch.stop()
            # A rest of a pipeline that lives on would disturb the next run.
            kill(child.pid)
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0)
        text = stdout.read().decode(errors="replace")
        stderr.seek(0)
        complaint = " ".join(stderr.read().decode(errors="replace").split())
    if watch.late:
        raise Failed(f"stopped after {TIMEOUT_S} s")
    if child.returncode:
        raise Failed(f"exit {child.returncode}: {complaint[-600:]}")
    return {
        "wall": wall, "user": used.ru_utime, "sys": used.ru_stime,
        "cpu": used.ru_utime + used.ru_stime, "rss": used.ru_maxrss << 10, "written": written,
        "held": watch.held, "services": sum(map(cpu_of, services)) - before if services else None,
    }, text


class Watch(threading.Thread):
    """Samples the disk held: files in the folder, and files without a name that a process has open."""

    def __init__(self, pid, folder):
        super().__init__(daemon=True)
        self.pid, self.folder = pid, folder
        self.held, self.late, self.done = 0, False, threading.Event()
        self.end = time.monotonic() + TIMEOUT_S

    def run(self):
        while not self.done.wait(SAMPLE_S):
            self.held = max(self.held, named(self.folder) + sum(map(unlinked, tree(self.pid))))
            if time.monotonic() > self.end:
                self.late = True
                kill(self.pid)

    def stop(self):
        self.done.set()
        self.join()
        # What a short run has left behind may not have been sampled.
        self.held = max(self.held, named(self.folder))


def rss_floor():
    """The least peak memory that can be seen: a process begins with that of the one that starts it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def kill(group):
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def named(folder):
    """Bytes that the files below a folder take up."""
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.stat(os.path.join(at, name))
            except OSError:
                continue
            total += status.st_blocks * 512
    return total


def tree(pid):
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                text = pathlib.Path(f"/proc/{parent}/task/{task}/children").read_text()
                found += map(int, text.split())
        except OSError:
            pass
    return found


def unlinked(pid):
    """Bytes of the files without a name that a process has open. Memory files are no disk."""
    total = 0
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            name = os.readlink(entry.path)
            if name.endswith(" (deleted)") and not name.startswith("/memfd:"):
                total += os.stat(entry.path).st_blocks * 512
    except OSError:
        pass
    return total


def field(path, name):
    """A number of a file of lines `name: number`; None where the kernel does not tell."""
    try:
        for line in pathlib.Path(path).read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
    except OSError:
        pass
    return None


def cpu_of(pid):
    """User and system seconds of a process so far."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK
