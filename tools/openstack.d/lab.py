"""The lab's folder, its state file, its lock, its ports, and the ownership of its processes."""
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parent.parent
MARK = "SNAPCOW_LAB_PART"


class LabError(Exception):
    """Something the user has to read: printed without a traceback, exit status 1."""


def say(text):
    print(f"openstack lab: {text}", file=sys.stderr, flush=True)


def digest(*things):
    return hashlib.sha256(json.dumps(things, sort_keys=True).encode()).hexdigest()[:16]


def write_file(path, text, mode=0o600):
    """Replace a file in one step, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as out:
        out.write(text)
    os.replace(new, path)


def tail(path, lines=30):
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


class Lab:
    def __init__(self):
        root = os.environ.get("SNAPCOW_LAB") or REPO / "target/lab"
        self.root = pathlib.Path(root).absolute()
        # The paths go into ini files and a database URL, which give some characters a meaning.
        if not re.fullmatch(r"[A-Za-z0-9._/+@-]+", str(self.root)):
            raise LabError(f"SNAPCOW_LAB must be a path of plain characters, not {self.root}")
        venv = os.environ.get("SNAPCOW_LAB_VENV") or self.root / "venv"
        self.venv = pathlib.Path(venv).absolute()
        self.log = self.root / "log"
        self.state_file = self.root / "state.json"
        self.state = {}

    def bin(self, name):
        return str(self.venv / "bin" / name)

    # --- state and lock -------------------------------------------------------------------------

    def load(self):
        try:
            self.state = json.loads(self.state_file.read_text())
        except (OSError, ValueError):
            self.state = {}
        for key in ("ports", "parts", "secrets"):
            self.state.setdefault(key, {})

    def save(self):
        write_file(self.state_file, json.dumps(self.state, indent=1) + "\n")

    def secret(self, name):
        """A password made once and kept until the lab is purged."""
        return self.state["secrets"].setdefault(name, secrets.token_hex(16))

    @contextlib.contextmanager
    def locked(self):
        self.root.mkdir(parents=True, exist_ok=True)
        # Python opens this close-on-exec, so no server inherits it and holds the lock for ever.
        with open(self.root / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another run of this tool")
                fcntl.flock(lock, fcntl.LOCK_EX)
            self.load()
            yield

    # --- ports ----------------------------------------------------------------------------------

    def choose_port(self, part):
        """The part's recorded port if it is still free, else a new one. For a part not running."""
        old = self.state["ports"].get(part)
        if old and port_free(old):
            return old
        taken = set(self.state["ports"].values())
        # Below the kernel's ephemeral range, or an outgoing connection could sit on the port
        # while the lab is down.
        for _ in range(1000):
            port = random.randint(20000, 32000)
            if port not in taken and port_free(port):
                self.state["ports"][part] = port
                return port
        raise LabError("no free port between 20000 and 32000 on 127.0.0.1")

    # --- processes ------------------------------------------------------------------------------

    def mark(self, part):
        return f"{MARK}={self.root}:{part}"

    def members(self, part):
        """Live pids of a part: every process, forked or not, that was started with its mark."""
        mark = self.mark(part).encode()
        return [pid for pid in all_pids() if mark in environ(pid)]

    def leader(self, part):
        """The recorded main process of a part, if it lives and really is that process."""
        known = self.state["parts"].get(part, {})
        pid = known.get("pid")
        if not pid or started_at(pid) != known.get("started"):
            return None
        return pid if self.mark(part).encode() in environ(pid) else None

    def spawn(self, part, command, env, fingerprint):
        """Start a part as a daemon: own session, no inherited descriptors, output to its log."""
        self.log.mkdir(parents=True, exist_ok=True)
        run = self.root / "run"
        run.mkdir(parents=True, exist_ok=True)
        log = self.log / f"{part}.log"
        if log.exists():
            log.replace(self.log / f"{part}.log.old")
        name, _, value = self.mark(part).partition("=")
        clean = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(run), "LANG": "C.UTF-8",
                 "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1",
                 # setproctitle, which gunicorn uses, would write its title over the mark.
                 "SPT_NOENV": "1", name: value, **env}
        with open(log, "wb") as out:
            process = subprocess.Popen(
                command, env=clean, cwd=run, start_new_session=True, close_fds=True,
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        # It outlives this program on purpose: no warning about an unreaped child at exit.
        process.returncode = 0
        self.state["parts"][part] = {"pid": process.pid, "started": started_at(process.pid),
                                     "fingerprint": fingerprint}
        self.save()

    def stop(self, parts, hard=False, patience=4.0):
        """End parts, whole process groups at once, politely first unless `hard`."""
        own_group = os.getpgrp()
        deadline = time.monotonic() + (0 if hard else patience)
        first = True
        while True:
            left = [pid for part in parts for pid in self.members(part)]
            if not left:
                break
            late = time.monotonic() >= deadline
            if first or late:
                sign = signal.SIGKILL if late else signal.SIGTERM
                for group in {group_of(pid) for pid in left} - {None, own_group}:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(group, sign)
                        # A paused process takes no SIGTERM before it is continued.
                        os.killpg(group, signal.SIGCONT)
            first = False
            if time.monotonic() > deadline + 10:
                raise LabError(f"cannot end the processes {left}")
            time.sleep(0.05)
        for part in parts:
            self.state["parts"].pop(part, None)
        self.save()


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def stat_fields(pid):
    """The fields of /proc/PID/stat from the third (state) on; none for a dead process."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    fields = text.rpartition(")")[2].split()
    # Where process 1 does not reap, the dead stay as zombies: they count as gone.
    return [] if fields[0] in "ZX" else fields


def started_at(pid):
    fields = stat_fields(pid)
    return fields[19] if fields else None


def stopped(pid):
    return stat_fields(pid)[:1] == ["T"]


def group_of(pid):
    fields = stat_fields(pid)
    return int(fields[2]) if fields else None


def environ(pid):
    if not stat_fields(pid):
        return []
    try:
        return pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def port_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
