"""The lab's servers: which there are, how each is started, and whether each answers."""
import http.client
import pathlib
import ssl
import time

from lab import HERE, LabError, digest, say, stopped, tail

# name: (server, takes Range, TLS, region)
VARIANTS = {
    "ranges": ("gunicorn", True, False, "RegionRanges"),
    "noranges": ("gunicorn", False, False, "RegionNoRanges"),
    "uwsgi": ("uwsgi", False, False, "RegionUwsgi"),
    "uwsgi1": ("uwsgi", False, False, "RegionUwsgi1"),
    "tls": ("gunicorn", True, True, "RegionTls"),
}
KEYSTONES = {"keystone": False, "keystone-tls": True}
# Where Nova is, its regions: all but the one that has TLS everywhere.
NOVA = "nova"
PARTS = [*KEYSTONES, *VARIANTS, NOVA]
# `up` on a small, busy machine: nine Python processes import Glance at the same time.
PATIENCE = 240


def is_tls(part):
    return KEYSTONES[part] if part in KEYSTONES else part != NOVA and VARIANTS[part][2]


def url(lab, part):
    base = f"{'https' if is_tls(part) else 'http'}://127.0.0.1:{lab.state['ports'][part]}"
    return base + "/v3" if part in KEYSTONES else base


def gunicorn(lab, part, app, workers, threads):
    command = [
        lab.bin("gunicorn"), "-k", "gthread", "-w", str(workers), "--threads", str(threads),
        # No worker timeout: a long upload is not a hung worker.
        "-t", "0", "--graceful-timeout", "1", "--no-control-socket",
        "-b", f"127.0.0.1:{lab.state['ports'][part]}", "--pythonpath", str(HERE / "wsgi"),
        # Says which requests a client made, and with which Range.
        "--access-logfile", str(lab.log / f"{part}.access.log"),
        "--access-logformat", '%(t)s "%(r)s" %(s)s %(B)s range="%({range}i)s" agent="%(a)s" %(L)ss',
    ]
    if is_tls(part):
        command += ["--certfile", str(lab.root / "tls/server.pem"),
                    "--keyfile", str(lab.root / "tls/server.key")]
    return [*command, f"{app}:application"]


def uwsgi(lab, part, app):
    many = ["--processes", "2", "--threads", "4"] if part == "uwsgi" else ["--processes", "1"]
    # No socket-timeout here: its default of 4 s is what this variant is for.
    return [
        lab.bin("uwsgi"), "--http-socket", f"127.0.0.1:{lab.state['ports'][part]}", *many,
        "--master", "--no-orphans", "--die-on-term", "--need-app", "--enable-threads",
        "--lazy-apps", "--http-chunked-input", "--http-raw-body", "--buffer-size", "65535",
        "--virtualenv", str(lab.venv), "--pythonpath", str(HERE / "wsgi"), "--module", app,
    ]


def nova(lab):
    script = HERE / "nova.py"
    command = [lab.bin("python"), str(script), str(lab.state["ports"][NOVA]), url(lab, "keystone"),
               url(lab, "noranges"), str(lab.root / "nova"), str(lab.root / "db/glance.sqlite")]
    return command, {}, digest(command, script.read_text(), lab.state["database"])


def recipe(lab, part):
    """Command, environment and fingerprint of a part; another fingerprint asks for a restart."""
    if part == NOVA:
        return nova(lab)
    if part in KEYSTONES:
        config = lab.root / "etc/keystone"
        command = gunicorn(lab, part, "lab_keystone", 1, 8)
        env = {"OS_KEYSTONE_CONFIG_DIR": str(config)}
        files = ["keystone.conf"]
    else:
        config = lab.root / "etc/glance"
        server, ranges, tls, _ = VARIANTS[part]
        if server == "uwsgi":
            command = uwsgi(lab, part, "lab_glance")
        else:
            # Every worker is an import of Glance, the bulk of a start; TLS is not for measuring.
            command = gunicorn(lab, part, "lab_glance", 1 if tls else 2, 16)
        env = {"OS_GLANCE_CONFIG_DIR": str(config), "LAB_NO_RANGES": "0" if ranges else "1"}
        files = ["glance-api.conf", "glance-api-paste.ini"]
    texts = [(config / name).read_text() for name in files]
    texts += [path.read_text() for path in sorted((HERE / "wsgi").glob("*.py"))]
    if is_tls(part):
        texts.append((lab.root / "tls/server.pem").read_text())
    stamp = (lab.venv / ".lab-stamp").read_text()
    return command, env, digest(command, env, texts, stamp, lab.state["database"])


def probe(lab, part, timeout=2.0):
    """The HTTP status of an unauthenticated request, or the exception that came instead."""
    port = lab.state["ports"][part]
    path = "/v3" if part in KEYSTONES else "/" if part == NOVA else "/versions"
    try:
        if is_tls(part):
            context = ssl.create_default_context(cafile=str(lab.root / "tls/ca.pem"))
            link = http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=context)
        else:
            link = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        try:
            link.request("GET", path)
            return link.getresponse().status
        finally:
            link.close()
    except (OSError, http.client.HTTPException) as error:
        return error


def health(lab, part):
    """'up', 'busy', 'paused', 'sick' or 'down'."""
    pid = lab.leader(part)
    if not pid:
        return "down"
    if any(stopped(member) for member in lab.members(part)):
        return "paused"
    answer = probe(lab, part)
    if answer == 200:
        return "up"
    # All threads at work on long transfers: the one-thread variant is often so. It lives.
    return "busy" if isinstance(answer, TimeoutError) else "sick"


def ensure(lab, parts):
    """Start what is missing, dead, paused or differently configured. Returns what was started."""
    wrong = []
    for part in parts:
        _, _, fingerprint = recipe(lab, part)
        same = lab.state["parts"].get(part, {}).get("fingerprint") == fingerprint
        if not same or health(lab, part) not in ("up", "busy"):
            wrong.append(part)
    if wrong:
        lab.stop(wrong)
    for part in wrong:
        lab.spawn(part, *recipe(lab, part))
    return wrong


def wait(lab, parts):
    """Wait until the parts answer; a part that died or stays silent ends the run with its log."""
    deadline = time.monotonic() + PATIENCE
    left = list(parts)
    while left:
        for part in list(left):
            alive = lab.leader(part)
            answer = probe(lab, part)
            if answer == 200:
                left.remove(part)
            elif not alive or time.monotonic() > deadline:
                why = f"still answers {answer!r} after {PATIENCE} s" if alive else "ended"
                fail(lab, part, why)
        time.sleep(0.1)


def fail(lab, part, why):
    log = pathlib.Path(lab.log / f"{part}.log")
    say(f"--- the end of {log}:\n{tail(log)}\n---")
    raise LabError(f"{part} {why}")
