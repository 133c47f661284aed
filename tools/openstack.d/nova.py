"""A stand-in for Nova: servers as data, their snapshots as real images in the lab's real Glance.

Nova itself cannot take a snapshot here: its fake driver uploads nothing, and a real one needs a
hypervisor, a message queue, Placement and Neutron. What it says over HTTP follows the Compute API
reference and nova/api/openstack/compute: status and task states, 202 and later, 409 in a wrong
state or while a task is set, createImage with a Location header below microversion 2.45 and a body
from there on, the record made in Glance with the user's own token and without a disk format, the
bytes sent from another thread. Tokens are checked by asking Keystone.

The control interface, without a token since it is a test's, on loopback:
  POST   /stand-in/servers      {"name", "project" (ID), "disk" (path), ...} -> {"id"}; the fields
                                of FIELDS may be given too
  GET    /stand-in/servers/ID   all of the server's state, and in "events" what was asked of it
  PATCH  /stand-in/servers/ID   changes fields, above all "hold"
  DELETE /stand-in/servers/ID   the server, and whatever waits for it
A path that begins with /max-2.N/ is a Nova whose largest microversion is 2.N.

usage: nova.py PORT KEYSTONE GLANCE FOLDER GLANCE_DATABASE
"""
import datetime
import http.client
import http.server
import json
import pathlib
import re
import sqlite3
import sys
import threading
import time
import urllib.parse
import uuid

FIELDS = {
    # Seconds that each stage takes: stopping, starting, the task states of a snapshot.
    "delays": {},
    # A stage at which the server stays until this is changed: one of the above, or "upload" in the
    # middle of the bytes.
    "hold": None,
    # What goes wrong: {"stop": "never|refuse|error", "start": "never|refuse|error",
    # "create": a status or "lost" (made, but the connection is cut) or "unmade" (cut, not made),
    # "answer": the ID of another image that createImage names instead,
    # "create_times": how often, "image": "killed|deleted|saving|queued|hashless" (the last one as a
    # snapshot inside of Ceph is: active, its hashes unknown), "task": "never",
    # "vanish": a stage, "metadata": a status}
    "faults": {},
    "volume_backed": False,
    # What it was made from.
    "image": "70a599e0-31e7-49b7-b260-868f441e862b",
    # Of its disk, and so of its snapshots: "raw", or "qcow2" as some of libvirt's are.
    "format": "raw",
    "status": "ACTIVE",
    "task_state": None,
    "metadata": {},
}
VM_STATES = {"ACTIVE": "active", "SHUTOFF": "stopped", "PAUSED": "paused", "SUSPENDED": "suspended",
             "ERROR": "error", "BUILD": "building", "SHELVED_OFFLOADED": "shelved_offloaded",
             "RESCUE": "rescued", "VERIFY_RESIZE": "resized"}
POWER_STATES = {"ACTIVE": 1, "PAUSED": 3, "SUSPENDED": 4, "SHUTOFF": 4}
LATEST = 96
PAGE = 50
DEMO_BYTES = 256 << 20


class Refused(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status
        self.message = message


class Gone(Exception):
    """The server was deleted while something waited for it."""


# --- the services beside it ---------------------------------------------------------------------

class Glance:
    """Glance as the user with this token, as Nova speaks to it."""

    def __init__(self, base, token):
        self.link = http.client.HTTPConnection(urllib.parse.urlsplit(base).netloc, timeout=600)
        self.token = token

    def call(self, method, path, body=None, kind="application/json"):
        data = None if body is None else json.dumps(body)
        for attempt in range(8):
            try:
                self.link.request(method, path, data,
                                  {"X-Auth-Token": self.token, "Content-Type": kind})
                answer = self.link.getresponse()
                text = answer.read()
            finally:
                self.link.close()
            # The lab's sqlite is «locked» now and then.
            if answer.status != 500:
                break
            time.sleep(0.1 * 2 ** attempt)
        if answer.status >= 400:
            raise Refused(answer.status, text.decode(errors="replace"))
        return json.loads(text) if text else {}

    def create(self, image):
        return self.call("POST", "/v2/images", image)["id"]

    def patch(self, image, change):
        self.call("PATCH", f"/v2/images/{image}", change,
                  "application/openstack-images-v2.1-json-patch")

    def delete(self, image):
        try:
            self.call("DELETE", f"/v2/images/{image}")
        except Refused as error:
            if error.status != 404:
                raise

    def upload(self, image, pieces):
        try:
            self.link.request("PUT", f"/v2/images/{image}/file", pieces, {
                "X-Auth-Token": self.token, "Content-Type": "application/octet-stream",
                "Transfer-Encoding": "chunked"}, encode_chunked=True)
            answer = self.link.getresponse()
            text = answer.read()
        finally:
            self.link.close()
        if answer.status >= 400:
            raise Refused(answer.status, text.decode(errors="replace"))


class Tokens:
    """Who a token belongs to: asked of Keystone, and believed for some seconds."""

    def __init__(self, keystone):
        self.at = urllib.parse.urlsplit(keystone)
        self.known = {}

    def check(self, token):
        if not token:
            raise Refused(401, "The request you have made requires authentication.")
        until, found = self.known.get(token, (0, None))
        if time.monotonic() < until:
            return found
        link = http.client.HTTPConnection(self.at.netloc, timeout=60)
        try:
            link.request("GET", f"{self.at.path}/auth/tokens",
                         headers={"X-Auth-Token": token, "X-Subject-Token": token})
            answer = link.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Refused(503, f"Keystone does not answer: {error}") from None
        finally:
            link.close()
        if answer.status != 200:
            raise Refused(401, "The request you have made requires authentication.")
        body = json.loads(text)["token"]
        if "project" not in body:
            raise Refused(403, "The token has no project.")
        found = body["project"]["id"], body["user"]["id"]
        if len(self.known) > 1000:
            self.known.clear()
        self.known[token] = time.monotonic() + 5, found
        return found


# --- servers ------------------------------------------------------------------------------------

class Server:
    def __init__(self, cloud, project, name, disk, fields):
        self.cloud = cloud
        self.id = str(uuid.uuid4())
        self.project, self.name, self.disk = project, name, disk
        self.created = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.changed = threading.Condition()
        self.gone = False
        self.at = None
        self.events = []
        for key, value in FIELDS.items():
            setattr(self, key, fields.get(key, value if not isinstance(value, dict) else dict(value)))

    def note(self, event):
        self.events.append([event, time.time()])

    def show(self):
        return {
            "id": self.id, "name": self.name, "status": self.status, "tenant_id": self.project,
            "created": self.created, "metadata": self.metadata, "flavor": {"id": "1"},
            "image": "" if self.volume_backed else {"id": self.image},
            "OS-EXT-STS:task_state": self.task_state,
            "OS-EXT-STS:vm_state": VM_STATES.get(self.status, "error"),
            "OS-EXT-STS:power_state": POWER_STATES.get(self.status, 0),
            "os-extended-volumes:volumes_attached": (
                [{"id": "5f0f4f4e-0d8a-4f0b-9a54-3a3a9f1f7a10", "delete_on_termination": False}]
                if self.volume_backed else []),
            "links": [],
        }

    def control(self):
        return {**{key: getattr(self, key) for key in FIELDS}, "id": self.id, "name": self.name,
                "at": self.at, "gone": self.gone, "events": self.events}

    def change(self, fields):
        with self.changed:
            for key, value in fields.items():
                if key not in FIELDS:
                    raise Refused(400, f"there is no field {key}")
                setattr(self, key, value)
            self.changed.notify_all()

    def end(self):
        with self.changed:
            self.gone = True
            self.changed.notify_all()

    def pause(self, stage):
        """Stays at a stage for its time, and as long as a test holds it there."""
        with self.changed:
            self.at = stage
            self.changed.wait_for(lambda: self.gone, self.delays.get(stage, 0.05))
            self.changed.wait_for(lambda: self.gone or self.hold != stage)
        if self.faults.get("vanish") == stage:
            self.note("vanished")
            self.cloud.remove(self)
        if self.gone:
            raise Gone

    def must_be(self, action, *states):
        if self.task_state is not None:
            raise Refused(409, f"Cannot '{action}' instance {self.id} while it is in task_state "
                               f"{self.task_state}")
        if self.status not in states:
            raise Refused(409, f"Cannot '{action}' instance {self.id} while it is in vm_state "
                               f"{VM_STATES.get(self.status, 'error')}")

    def turn(self, action, task, stage, before, after):
        """os-stop and os-start: accepted now, done later."""
        fault = self.faults.get(action)
        with self.changed:
            self.note(f"os-{action}")
            if fault == "refuse":
                raise Refused(409, f"Instance {self.id} is locked")
            self.must_be(action, *before)
            self.task_state = task

        def work():
            self.pause(stage)
            if fault == "never":
                self.stay()
            with self.changed:
                self.status = "ERROR" if fault == "error" else after
                self.task_state = self.at = None
        self.run(work)

    def stay(self):
        """Nothing ever comes."""
        with self.changed:
            self.changed.wait_for(lambda: self.gone)
        raise Gone

    def run(self, work):
        def body():
            try:
                work()
            except Gone:
                pass
        threading.Thread(target=body, daemon=True).start()

    # --- snapshots ------------------------------------------------------------------------------

    def create_image(self, wanted, token, user, minor):
        """Makes the record now and sends the bytes later; returns the image's ID."""
        fault = self.faults.get("create")
        times = self.faults.get("create_times", 1000)
        with self.changed:
            self.note(f"createImage 2.{minor}")
            if fault and times > 0:
                self.faults["create_times"] = times - 1
                if fault == "unmade":
                    raise ConnectionAbortedError
                if fault != "lost":
                    raise Refused(int(fault), "Quota exceeded, too many images."
                                  if fault in (403, 413) else "the stand-in was told to say so")
            else:
                fault = None
            self.must_be("createImage", "ACTIVE", "SHUTOFF", "PAUSED", "SUSPENDED")
            self.task_state = "image_snapshot_pending"
        glance = Glance(self.cloud.glance, token)
        size = pathlib.Path(self.disk).stat().st_size
        try:
            image = glance.create({
                **{str(key): str(value) for key, value in wanted.get("metadata", {}).items()},
                "name": wanted["name"], "visibility": "private", "min_disk": -(-size >> 30),
                "instance_uuid": self.id, "user_id": user, "image_type": "snapshot",
                "base_image_ref": self.image})
        except Refused:
            self.task_state = None
            raise
        self.note("image " + image)
        self.run(lambda: self.take(glance, image))
        if fault == "lost":
            raise ConnectionAbortedError
        return self.faults.get("answer", image)

    def take(self, glance, image):
        """The compute manager's part: on a failure it deletes what it made."""
        fault = self.faults.get("image")
        try:
            self.pause("image_snapshot_pending")
            for task in ("image_snapshot", "image_pending_upload"):
                self.task_state = task
                self.pause(task)
            if fault != "queued":
                self.task_state = "image_uploading"
                self.pause("image_uploading")
                glance.patch(image, [{"op": "add", "path": "/disk_format", "value": self.format},
                                     {"op": "add", "path": "/container_format", "value": "bare"}])
                glance.upload(image, self.bytes(fault))
                if fault == "hashless":
                    self.cloud.change(image, "checksum = NULL, os_hash_algo = NULL, "
                                             "os_hash_value = NULL")
        except (Gone, Refused, OSError, http.client.HTTPException) as error:
            self.note(f"upload ended: {type(error).__name__} {error}")
            try:
                if fault == "killed":
                    self.cloud.kill(glance, image)
                else:
                    glance.delete(image)
            except (Refused, OSError, http.client.HTTPException) as error:
                # Somebody else may be deleting it; the server is free again all the same.
                self.note(f"not deleted: {error}")
            if self.gone:
                return
        if self.faults.get("task") == "never":
            self.stay()
        with self.changed:
            self.task_state = self.at = None
            self.note("snapshot ended")

    def bytes(self, fault):
        with open(self.disk, "rb") as disk:
            half = pathlib.Path(self.disk).stat().st_size // 2
            while piece := disk.read(1 << 20):
                yield piece
                if half is not None and disk.tell() >= half:
                    half = None
                    self.pause("upload")
                    if fault == "saving":
                        self.stay()
                    if fault in ("killed", "deleted"):
                        raise OSError("the hypervisor lost the disk")


class Cloud:
    """All servers of all projects."""

    def __init__(self, keystone, glance, folder, database):
        self.tokens = Tokens(keystone)
        self.glance, self.folder, self.database = glance, pathlib.Path(folder), database
        self.lock = threading.Lock()
        self.servers = {}
        self.seen = set()

    def add(self, project, name, disk, fields):
        if not pathlib.Path(disk).is_file():
            raise Refused(400, f"there is no disk {disk}")
        server = Server(self, project, name, disk, fields)
        with self.lock:
            self.servers[server.id] = server
        return server

    def remove(self, server):
        with self.lock:
            self.servers.pop(server.id, None)
        server.end()

    def of(self, project):
        """A project's servers; the first look finds one that a person can try things with."""
        with self.lock:
            new = project not in self.seen
            self.seen.add(project)
        if new:
            self.add(project, "demo-server", demo_disk(self.folder), {})
        with self.lock:
            return [server for server in self.servers.values() if server.project == project]

    def one(self, project, ident):
        for server in self.of(project):
            if server.id == ident:
                return server
        raise Refused(404, f"Instance {ident} could not be found.")

    def kill(self, glance, image):
        """The status that only old Glances and broken stores leave behind."""
        # The worker whose upload broke sets it back first.
        deadline = time.monotonic() + 60
        while (glance.call("GET", f"/v2/images/{image}")["status"] == "saving"
               and time.monotonic() < deadline):
            time.sleep(0.1)
        self.change(image, "status = 'killed'")

    def change(self, image, what):
        link = sqlite3.connect(self.database, timeout=60)
        with link:
            link.execute(f"UPDATE images SET {what} WHERE id = ?", (image,))
        link.close()


def demo_disk(folder):
    """A small disk with a partition table, text and holes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "demo-disk.raw"
    if not path.exists():
        new = path.with_name("demo-disk.new")
        with open(new, "wb") as disk:
            disk.truncate(DEMO_BYTES)
            table = bytearray(512)
            table[450] = 0x83
            table[454:458] = (2048).to_bytes(4, "little")
            table[458:462] = (DEMO_BYTES // 512 - 2048).to_bytes(4, "little")
            table[510:] = b"\x55\xaa"
            disk.write(table)
            for at in range(1 << 20, DEMO_BYTES, 32 << 20):
                disk.seek(at)
                disk.write(b"".join(b"line %d of the demo disk\n" % (at + line)
                                    for line in range(100000)))
        new.replace(path)
    return path


# --- HTTP ---------------------------------------------------------------------------------------

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cloud = None

    def handle_any(self):
        length = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(length)
        self.latest = LATEST
        url = urllib.parse.urlsplit(self.path)
        path = url.path
        if found := re.match(r"/max-2\.(\d+)(/.*)", path):
            self.latest, path = int(found[1]), found[2]
        try:
            body = json.loads(text) if text else None
            self.answer(*self.route(path, dict(urllib.parse.parse_qsl(url.query)), body))
        except ConnectionAbortedError:
            self.close_connection = True
        except ValueError as error:
            self.fault(400, f"Malformed request body: {error}")
        except Refused as error:
            self.fault(error.status, error.message)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any

    def answer(self, status, body=None, headers=()):
        text = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def fault(self, status, message):
        if status == 401:
            self.answer(401, {"error": {"code": 401, "message": message}})
            return
        word = {400: "badRequest", 403: "forbidden", 404: "itemNotFound", 409: "conflictingRequest",
                413: "overLimit"}.get(status, "computeFault")
        self.answer(status, {word: {"code": status, "message": message}})

    def log_message(self, *words):
        print(time.strftime("%H:%M:%S"), self.command, self.path, *words[1:], flush=True)

    def route(self, path, query, body):
        parts = [part for part in path.split("/") if part]
        if parts[:2] == ["stand-in", "servers"]:
            return self.stand_in(parts[2:], body)
        if not parts:
            return 200, {"versions": [self.version("v2.0"), self.version("v2.1")]}
        if parts == ["v2.1"]:
            return 200, {"version": self.version("v2.1")}
        if parts[0] != "v2.1" or parts[1:2] != ["servers"]:
            raise Refused(404, "The resource could not be found.")
        token = self.headers.get("X-Auth-Token")
        project, user = self.cloud.tokens.check(token)
        minor = self.microversion()
        rest = parts[2:]
        if rest in ([], ["detail"]) and self.command == "GET":
            return self.servers(project, query, bool(rest))
        server = self.cloud.one(project, rest[0]) if rest else None
        if len(rest) == 1 and self.command == "GET":
            return 200, {"server": server.show()}
        if rest[1:] == ["action"] and self.command == "POST":
            return self.action(server, body, token, user, minor)
        if rest[1:2] == ["metadata"]:
            return self.metadata(server, rest[2:], body)
        raise Refused(404, "The resource could not be found.")

    def version(self, name):
        if name == "v2.0" or self.latest == 0:
            return {"id": name, "status": "SUPPORTED", "version": "", "min_version": "", "links": []}
        return {"id": name, "status": "CURRENT", "version": f"2.{self.latest}", "min_version": "2.1",
                "links": [{"rel": "self", "href": "http://elsewhere.invalid/v2.1/"}]}

    def microversion(self):
        asked = self.headers.get("OpenStack-API-Version", "")
        asked = asked.removeprefix("compute ") or self.headers.get("X-OpenStack-Nova-API-Version", "2.1")
        found = re.fullmatch(r"2\.(\d+)", asked)
        if not found or not 1 <= int(found[1]) <= max(self.latest, 1):
            raise Refused(406, f"Version {asked} is not supported by the API. Minimum is 2.1 and "
                               f"maximum is 2.{self.latest}.")
        return int(found[1])

    def servers(self, project, query, detail):
        try:
            name = re.compile(query.get("name", ""), re.IGNORECASE)
        except re.error:
            raise Refused(400, "Invalid filter: name") from None
        found = sorted((server for server in self.cloud.of(project) if name.search(server.name)),
                       key=lambda server: server.id)
        if "image" in query:
            found = [server for server in found
                     if server.image == query["image"] and not server.volume_backed]
        marker = query.get("marker")
        if marker:
            found = [server for server in found if server.id > marker]
        limit = min(int(query.get("limit", PAGE)), PAGE)
        shown = [server.show() if detail else {"id": server.id, "name": server.name}
                 for server in found[:limit]]
        answer = {"servers": shown}
        if len(found) > limit:
            query = urllib.parse.urlencode({**query, "marker": shown[-1]["id"]})
            answer["servers_links"] = [
                {"rel": "next", "href": f"http://elsewhere.invalid/v2.1/servers/detail?{query}"}]
        return 200, answer

    def action(self, server, body, token, user, minor):
        if not isinstance(body, dict) or len(body) != 1:
            raise Refused(400, "There is no such action")
        [(what, wanted)] = body.items()
        if what == "os-stop":
            server.turn("stop", "powering-off", "stopping", ("ACTIVE", "ERROR"), "SHUTOFF")
            return 202,
        if what == "os-start":
            server.turn("start", "powering-on", "starting", ("SHUTOFF",), "ACTIVE")
            return 202,
        if what == "createImage":
            name = wanted.get("name")
            if not isinstance(name, str) or not 1 <= len(name) <= 255 or name != name.strip():
                raise Refused(400, f"Invalid input for field/attribute name. Value: {name}.")
            image = server.create_image(wanted, token, user, minor)
            if minor >= 45:
                return 202, {"image_id": image}
            return 202, None, [("Location", f"{self.cloud.glance}/images/{image}")]
        raise Refused(400, f"There is no such action: {what}")

    def metadata(self, server, rest, body):
        fault = server.faults.get("metadata")
        if fault:
            raise Refused(fault, "Policy doesn't allow os_compute_api:server-metadata to be performed.")
        if self.command == "POST" and not rest:
            server.metadata.update(body["metadata"])
            return 200, {"metadata": server.metadata}
        if self.command == "DELETE" and len(rest) == 1:
            if server.metadata.pop(urllib.parse.unquote(rest[0]), None) is None:
                raise Refused(404, "Metadata item was not found")
            return 204,
        raise Refused(404, "The resource could not be found.")

    def stand_in(self, rest, body):
        if not rest and self.command == "POST":
            fields = {key: value for key, value in body.items() if key in FIELDS}
            server = self.cloud.add(body["project"], body["name"], body["disk"], fields)
            return 200, {"id": server.id}
        server = self.cloud.servers.get(rest[0]) if rest else None
        if server is None:
            raise Refused(404, "no such server")
        if self.command == "PATCH":
            server.change(body)
        if self.command == "DELETE":
            self.cloud.remove(server)
        return 200, server.control()


def main():
    port, keystone, glance, folder, database = sys.argv[1:]
    Handler.cloud = Cloud(keystone, glance, folder, database)
    http.server.ThreadingHTTPServer.daemon_threads = True
    http.server.ThreadingHTTPServer.request_queue_size = 128
    http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
