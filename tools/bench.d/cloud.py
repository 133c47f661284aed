"""The lab's Glance: the source image, tokens, and what the harness itself asks of it."""
import json
import os
import pathlib
import subprocess
import time
import urllib.error
import urllib.request

from model import BenchError

REPO = pathlib.Path(__file__).resolve().parent.parent.parent
# A token is good for an hour; the longest way takes minutes.
TOKEN_S = 600
UP = "tools/openstack up --with-client"


class Absent(Exception):
    """The lab is not there; the text says what to do."""


def lab_folder():
    return pathlib.Path(os.environ.get("SNAPCOW_LAB") or REPO / "target/lab").absolute()


class Cloud:
    """One variant of Glance. Requests go by plain HTTP: what is measured is not the harness."""

    SERVER = "snapcow-bench-server"

    def __init__(self, variant):
        self.lab = lab_folder()
        try:
            facts = json.loads((self.lab / "lab.json").read_text())
        except (OSError, ValueError):
            raise Absent(f"the lab is not up: {UP}") from None
        self.glance = facts["variants"][variant]["url"]
        self.cloud = facts["variants"][variant]["cloud"]
        if not facts["client"]:
            raise Absent(f"the lab has no `openstack` command: {UP}")
        self.client = facts["client"]
        self.nova, self.project = facts["nova"], facts["projects"]["lab-a"]
        self.member = {"MEMBER_CLOUD": "lab-b", "MEMBER_PROJECT": facts["projects"]["lab-b"]}
        self.environment = {"OS_CLIENT_CONFIG_FILE": facts["clouds_yaml"], "OS_CLOUD": self.cloud}
        self.taken = None
        try:
            self.call("GET", "/versions", needs_token=False)
        except BenchError as error:
            raise Absent(f"the lab does not answer ({error}): {UP}") from None

    def token(self):
        """A token by `openstack token issue`, at most ten minutes old."""
        if not self.taken or time.monotonic() - self.taken[1] > TOKEN_S:
            done = subprocess.run(
                [self.client, "token", "issue", "-f", "value", "-c", "id"],
                env=clean_environment() | self.environment, stdin=subprocess.DEVNULL,
                capture_output=True, text=True)
            if done.returncode:
                raise BenchError(f"openstack token issue failed: {done.stderr.strip()[-400:]}")
            self.taken = done.stdout.strip(), time.monotonic()
        return self.taken[0]

    def call(self, method, path, body=None, needs_token=True, base=None):
        request = urllib.request.Request((base or self.glance) + path, method=method)
        request.add_header("Content-Type", "application/json")
        if needs_token:
            request.add_header("X-Auth-Token", self.token())
        data = None if body is None else json.dumps(body).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, data, timeout=120) as answer:
                text = answer.read()
                return json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            raise BenchError(f"{method} {path}: {error.code}") from None
        except OSError as error:
            raise BenchError(f"{method} {path}: {error}") from None

    def serve(self, raw):
        """A running server with this disk, in the lab's stand-in for Nova; its ID."""
        return self.call("POST", "/stand-in/servers", {
            "name": self.SERVER, "project": self.project, "disk": str(raw)},
            needs_token=False, base=self.nova)["id"]

    def unserve(self, ident):
        self.call("DELETE", f"/stand-in/servers/{ident}", needs_token=False, base=self.nova)

    def upload(self, raw):
        """The raw disk as a new image; its ID."""
        ident = self.call("POST", "/v2/images", {
            "name": "snapcow-bench-source", "disk_format": "raw", "container_format": "bare"})["id"]
        try:
            self.curl("-H", "Content-Type: application/octet-stream", "-T", str(raw),
                      f"{self.glance}/v2/images/{ident}/file")
        except BaseException:
            self.delete(ident)
            raise
        return ident

    def download(self, ident, path):
        self.curl("-o", str(path), f"{self.glance}/v2/images/{ident}/file")

    def curl(self, *words):
        done = subprocess.run(
            ["curl", "-sSf", "--noproxy", "*", "-H", "Expect:", "-H", "@-", *words],
            input=f"X-Auth-Token: {self.token()}\n", capture_output=True, text=True)
        if done.returncode:
            raise BenchError(f"curl failed: {done.stderr.strip()[-400:]}")

    def size(self, ident):
        return self.call("GET", f"/v2/images/{ident}")["size"]

    def delete(self, ident):
        self.call("DELETE", f"/v2/images/{ident}")

    def strays(self):
        """Images that failed runs have left, removed."""
        for name in ("snapcow-bench", "snapcow-bench-raw"):
            for image in self.call("GET", f"/v2/images?name={name}&limit=100")["images"]:
                self.delete(image["id"])

    def processes(self):
        """The services of the lab and their workers."""
        state = json.loads((self.lab / "state.json").read_text())
        found = {part["pid"] for part in state["parts"].values()}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                except OSError:
                    continue
                if parent in found:
                    found.add(int(entry.name))
        return sorted(found)


def clean_environment():
    """Without settings of another cloud, and without a proxy: the lab is on loopback."""
    return {name: value for name, value in os.environ.items()
            if not name.startswith("OS_") and not name.lower().endswith("_proxy")}
