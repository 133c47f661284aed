"""The lab's virtual environment, certificates, configuration files and databases."""
import os
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import textwrap
import threading

from lab import HERE, LabError, digest, say, tail, write_file
from parts import url

SERVERS = ["keystone", "glance", "glance_store", "gunicorn", "uwsgi"]
CLIENT = ["python-openstackclient"]
DEFAULT_TTL = 3600


# --- virtual environment ------------------------------------------------------------------------

def need_tools():
    """Name the Debian package of everything missing, before pip fails less clearly."""
    missing = []
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        missing.append("python3-venv")
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        missing.append("python3-dev")
    if not shutil.which("gcc"):
        missing.append("gcc (with libc6-dev)")
    if missing:
        raise LabError("the lab's servers cannot be installed; on Debian: apt-get install "
                       + " ".join(missing) + f"\n(python used: {sys.executable})")


def start(log, *command):
    with open(log, "ab") as out:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out,
                                stderr=subprocess.STDOUT)


def ensure_venv(lab, with_client):
    if sys.version_info < (3, 11):
        raise LabError("Keystone and Glance need Python 3.11 or later; set SNAPCOW_PYTHON")
    if not shutil.which("openssl"):
        raise LabError("no openssl found; on Debian: apt-get install openssl")
    pins = HERE / "constraints.txt"
    stamp = digest(pins.read_text(), SERVERS, list(sys.version_info[:2]))
    stamp_file = lab.venv / ".lab-stamp"
    client_file = lab.venv / ".lab-client"
    python = lab.bin("python")
    # A virtual environment whose Python was removed or upgraded away still has its files.
    works = os.path.exists(python) and subprocess.run(
        [python, "-c", "import pip"], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
    have = stamp_file.read_text() if works and stamp_file.exists() else None
    have_client = works and client_file.exists() and client_file.read_text() == stamp
    if have == stamp and (have_client or not with_client):
        return
    lab.log.mkdir(parents=True, exist_ok=True)
    log = lab.log / "pip.log"
    log.unlink(missing_ok=True)
    need_tools()
    if not works:
        say("making the virtual environment")
        if start(log, sys.executable, "-m", "venv", "--clear", str(lab.venv)).wait():
            raise LabError(f"no virtual environment:\n{tail(log)}\n"
                           "on Debian: apt-get install python3-venv")
    wanted = ([] if have == stamp else SERVERS) + (CLIENT if with_client else [])
    say("installing " + ", ".join(wanted) + " (a minute or more)")
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    compiled = None
    if have != stamp:
        # uWSGI holds the interpreter it was compiled against, so a wheel that pip's cache kept
        # from another Python of the same version does not work here. It compiles meanwhile.
        uwsgi_log, wheels = lab.log / "pip-uwsgi.log", lab.venv / ".wheels"
        uwsgi_log.unlink(missing_ok=True)
        shutil.rmtree(wheels, ignore_errors=True)
        compiled = start(uwsgi_log, *pip, "wheel", "--no-cache-dir", "--use-pep517", "--no-deps",
                         "-c", str(pins), "-w", str(wheels), "uwsgi")
    rest = [name for name in wanted if name != "uwsgi"]
    # Most of what is installed is never imported: compiling it all costs more than compiling what is.
    failed = start(log, *pip, "install", "--no-compile", "-c", str(pins), *rest).wait()
    if compiled and compiled.wait():
        raise LabError(f"uWSGI does not compile; the end of {uwsgi_log}:\n{tail(uwsgi_log)}\n"
                       "on Debian: apt-get install gcc libc6-dev python3-dev")
    if not failed and compiled:
        failed = start(log, *pip, "install", "--force-reinstall", "--no-deps",
                       *map(str, wheels.glob("*.whl"))).wait()
        shutil.rmtree(wheels, ignore_errors=True)
    if failed:
        raise LabError(f"pip failed; the end of {log}:\n{tail(log)}\nif a compiler error is in "
                       "it, on Debian: apt-get install gcc libc6-dev python3-dev")
    write_file(stamp_file, stamp)
    if with_client:
        write_file(client_file, stamp)


# --- certificates -------------------------------------------------------------------------------

def ensure_tls(lab):
    """A CA and a server certificate signed by it, for 127.0.0.1 and localhost."""
    tls = lab.root / "tls"
    tls.mkdir(parents=True, exist_ok=True)

    def openssl(*words):
        done = subprocess.run(["openssl", *words], cwd=tls, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True)
        return done.returncode == 0, done.stderr

    if openssl("verify", "-CAfile", "ca.pem", "server.pem")[0] and \
            openssl("x509", "-checkend", "86400", "-noout", "-in", "server.pem")[0]:
        return
    # OpenSSL's own configuration file would add extensions of its own, twice.
    write_file(tls / "openssl.cnf", textwrap.dedent("""\
        [req]
        distinguished_name = dn
        [dn]
        [ca]
        basicConstraints = critical, CA:TRUE
        keyUsage = critical, keyCertSign, cRLSign
        subjectKeyIdentifier = hash
        [server]
        basicConstraints = critical, CA:FALSE
        keyUsage = critical, digitalSignature
        extendedKeyUsage = serverAuth
        subjectAltName = IP:127.0.0.1, DNS:localhost
        subjectKeyIdentifier = hash
        authorityKeyIdentifier = keyid
        """))
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
           "-config", "openssl.cnf"]
    for words in (
        ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "3650",
         "-subj", "/CN=snapcow lab CA", "-extensions", "ca"],
        ["req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"],
        ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
         "-CAcreateserial", "-out", "server.pem", "-days", "800",
         "-extfile", "openssl.cnf", "-extensions", "server"],
    ):
        good, text = openssl(*words)
        if not good:
            raise LabError(f"openssl {words[0]} failed:\n{text}")


# --- configuration ------------------------------------------------------------------------------

def database(lab, name):
    # The timeout is a writer's patience with another writer; the default of 5 s is not enough for
    # nine processes on a busy machine.
    return f"sqlite:///{lab.root}/db/{name}.sqlite?timeout=60"


def write_config(lab):
    """The servers' files. Glance's needs Keystone's port to be chosen."""
    root = lab.root
    ttl = lab.state.setdefault("token_ttl", DEFAULT_TTL)
    # sqlite_synchronous: a power cut may cost this lab its data; that is not worth waiting for the
    # disk.
    # password_hash_rounds: the cheapest bcrypt; its default makes every login slow. cache: as clouds have it, by
    # memcached; without one every token costs 0.1 s of CPU, issued or looked at.
    write_file(root / "etc/keystone/keystone.conf", textwrap.dedent(f"""\
        [DEFAULT]
        use_stderr = true
        [database]
        connection = {database(lab, "keystone")}
        sqlite_synchronous = false
        [identity]
        password_hash_rounds = 4
        [cache]
        enabled = true
        backend = dogpile.cache.memory
        [token]
        provider = fernet
        expiration = {ttl}
        [fernet_tokens]
        key_repository = {root}/etc/keystone/fernet
        [credential]
        key_repository = {root}/etc/keystone/credential
        """))
    write_file(root / "etc/glance/glance-api.conf", textwrap.dedent(f"""\
        [DEFAULT]
        use_stderr = true
        enabled_backends = fs:file, fs2:file
        image_size_cap = {1 << 44}
        [database]
        connection = {database(lab, "glance")}
        sqlite_synchronous = false
        [glance_store]
        default_backend = fs
        [fs]
        filesystem_store_datadir = {root}/store/fs
        [fs2]
        filesystem_store_datadir = {root}/store/fs2
        [os_glance_staging_store]
        filesystem_store_datadir = {root}/store/staging
        [os_glance_tasks_store]
        filesystem_store_datadir = {root}/store/tasks
        [oslo_concurrency]
        lock_path = {root}/run/lock
        [paste_deploy]
        flavor = keystone
        config_file = {root}/etc/glance/glance-api-paste.ini
        [keystone_authtoken]
        www_authenticate_uri = {url(lab, "keystone")}
        auth_url = {url(lab, "keystone")}
        auth_type = password
        username = glance
        password = {lab.secret("glance")}
        project_name = service
        user_domain_id = default
        project_domain_id = default
        interface = public
        region_name = RegionNoRanges
        service_token_roles_required = true
        """))
    paste = (lab.venv / "etc/glance/glance-api-paste.ini").read_text()
    write_file(root / "etc/glance/glance-api-paste.ini", paste)
    for name in ("db", "run/lock", "store/fs", "store/fs2", "store/staging", "store/tasks"):
        (root / name).mkdir(parents=True, exist_ok=True)


# --- databases ----------------------------------------------------------------------------------

def manage(lab, what, *words):
    """Run a management command, its output in a log of its own; returns an error text or None."""
    config = {"keystone-manage": "etc/keystone/keystone.conf",
              "glance-manage": "etc/glance/glance-api.conf"}[words[0]]
    log = lab.log / f"setup-{what}.log"
    # Marked like a server, so that the next run finds it when this one is killed.
    name, _, value = lab.mark("setup").partition("=")
    with open(log, "wb") as out:
        code = subprocess.run(
            [lab.bin(words[0]), "--config-file", str(lab.root / config), *words[1:]],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=lab.root,
            env={**os.environ, name: value}).returncode
    return f"{' '.join(words[:2])} failed; the end of {log}:\n{tail(log)}" if code else None


def together(jobs):
    """Run jobs at the same time; the first error text ends the run."""
    errors = []
    threads = [threading.Thread(target=lambda job=job: errors.append(job())) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in filter(None, errors):
        raise LabError(error)


def ensure_database(lab):
    """Make both databases, unless a finished pair is there. Half-made ones are thrown away."""
    paths = [lab.root / f"db/{name}.sqlite" for name in ("keystone", "glance")]
    if lab.state.get("database") and all(path.exists() for path in paths):
        return
    say("making the databases")
    # A new identity for the database restarts every server that still holds the old one.
    lab.state.pop("database", None)
    lab.state.pop("seeded", None)
    lab.save()
    for name in ("db", "store", "etc/keystone/fernet", "etc/keystone/credential"):
        shutil.rmtree(lab.root / name, ignore_errors=True)
    write_config(lab)
    lab.log.mkdir(parents=True, exist_ok=True)
    owner = ["--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid())]
    together([
        lambda: manage(lab, "keystone-db", "keystone-manage", "db_sync"),
        lambda: manage(lab, "glance-db", "glance-manage", "db_sync"),
        lambda: manage(lab, "fernet", "keystone-manage", "fernet_setup", *owner),
        lambda: manage(lab, "credential", "keystone-manage", "credential_setup", *owner),
    ])
    for path in paths:
        # Kept in the file: readers no longer block the writer, nor the writer them.
        with sqlite3.connect(path) as link:
            link.execute("PRAGMA journal_mode=WAL")
        link.close()
    together([lambda: manage(
        lab, "bootstrap", "keystone-manage", "bootstrap",
        "--bootstrap-username", "admin", "--bootstrap-password", lab.secret("admin"),
        "--bootstrap-project-name", "admin", "--bootstrap-region-id", "RegionNoRanges",
        "--bootstrap-public-url", url(lab, "keystone"))])
    lab.state["database"] = os.urandom(8).hex()
    lab.save()
