"""Users, catalogue and client files of the lab, over Keystone's plain HTTP interface.

Every step looks first and makes or corrects only what differs, so it can be repeated: after a port
has changed, or after a run that was cut off.
"""
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request

from lab import LabError, digest, write_file
from parts import NOVA, PARTS, VARIANTS, url

VERSION = 1
# user: (project, role)
USERS = {"lab-a": ("lab-a", "member"), "lab-b": ("lab-b", "member"), "glance": ("service", "service")}


class Keystone:
    def __init__(self, lab, base=None):
        self.base = base or url(lab, "keystone")
        self.token = None
        ca = lab.root / "tls/ca.pem"
        self.context = ssl.create_default_context(cafile=str(ca)) if ca.exists() else None

    def call(self, method, path, body=None):
        request = urllib.request.Request(self.base + path, method=method)
        request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("X-Auth-Token", self.token)
        data = None if body is None else json.dumps(body).encode()
        # No proxy from the environment: the lab is on loopback.
        handlers = [urllib.request.ProxyHandler({})]
        if self.base.startswith("https"):
            handlers.append(urllib.request.HTTPSHandler(context=self.context))
        try:
            with urllib.request.build_opener(*handlers).open(request, data, timeout=120) as answer:
                text = answer.read()
                return answer.headers, json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            raise LabError(f"{method} {self.base}{path}: {error.code} "
                           f"{error.read().decode(errors='replace')}") from None
        except OSError as error:
            raise LabError(f"{method} {self.base}{path}: {error}") from None

    def login(self, user, password, project):
        self.token = None
        domain = {"id": "default"}
        headers, body = self.call("POST", "/auth/tokens", {"auth": {
            "identity": {"methods": ["password"], "password": {
                "user": {"name": user, "domain": domain, "password": password}}},
            "scope": {"project": {"name": project, "domain": domain}}}})
        self.token = headers["X-Subject-Token"]
        return body["token"]

    def login_application(self, ident, secret):
        self.token = None
        headers, body = self.call("POST", "/auth/tokens", {"auth": {"identity": {
            "methods": ["application_credential"],
            "application_credential": {"id": ident, "secret": secret}}}})
        self.token = headers["X-Subject-Token"]
        return body["token"]

    def list(self, kind, path=None, **query):
        path = path or f"/{kind}"
        return self.call("GET", f"{path}?{urllib.parse.urlencode(query)}")[1][kind]

    def ensure(self, kind, one, name, **values):
        """The id of the thing with this name, made if it is not there."""
        for found in self.list(kind, name=name):
            return found["id"]
        return self.call("POST", f"/{kind}", {one: {"name": name, **values}})[1][one]["id"]


def region(part):
    return VARIANTS[part][3]


def catalogue(lab):
    """(service type, region): URL. The TLS region has TLS everywhere."""
    wanted = {}
    for part, (_, _, tls, name) in VARIANTS.items():
        wanted["image", name] = url(lab, part)
        wanted["identity", name] = url(lab, "keystone-tls" if tls else "keystone")
        if not tls:
            wanted["compute", name] = url(lab, NOVA) + "/v2.1"
    return wanted


def seed_catalogue(admin, wanted):
    have_regions = {found["id"] for found in admin.list("regions")}
    for name in sorted({name for _, name in wanted} - have_regions):
        admin.call("POST", "/regions", {"region": {"id": name}})
    services = {found["type"]: found["id"] for found in admin.list("services")}
    for name, kind in (("glance", "image"), ("nova", "compute")):
        if kind not in services:
            services[kind] = admin.call("POST", "/services", {"service": {
                "name": name, "type": kind}})[1]["service"]["id"]
    have = {(found["service_id"], found["region_id"]): found for found in admin.list("endpoints")
            if found["interface"] == "public"}
    for (kind, name), target in wanted.items():
        found = have.get((services[kind], name))
        if not found:
            admin.call("POST", "/endpoints", {"endpoint": {
                "service_id": services[kind], "region_id": name, "interface": "public",
                "url": target}})
        elif found["url"] != target:
            admin.call("PATCH", f"/endpoints/{found['id']}", {"endpoint": {"url": target}})


def seed(lab):
    wanted = catalogue(lab)
    print_of_all = digest(VERSION, lab.state["database"],
                          sorted([*key, value] for key, value in wanted.items()))
    if lab.state.get("seeded") == print_of_all:
        return
    admin = Keystone(lab)
    admin.login("admin", lab.secret("admin"), "admin")
    seed_catalogue(admin, wanted)
    ids = {}
    roles = {found["name"]: found["id"] for found in admin.list("roles")}
    for user, (project, role) in USERS.items():
        # Bootstrap makes these roles in recent Keystones only.
        if role not in roles:
            roles[role] = admin.ensure("roles", "role", role)
        ids[project] = admin.ensure("projects", "project", project, domain_id="default")
        user_id = admin.ensure("users", "user", user, domain_id="default",
                               password=lab.secret(user))
        admin.call("PUT", f"/projects/{ids[project]}/users/{user_id}/roles/{roles[role]}")
    a = Keystone(lab)
    user_id = a.login("lab-a", lab.secret("lab-a"), "lab-a")["user"]["id"]
    path = f"/users/{user_id}/application_credentials"
    known = [found["id"] for found in a.list("application_credentials", path, name="lab")]
    if not known:
        made = a.call("POST", path, {"application_credential": {
            "name": "lab", "secret": lab.secret("appcred"), "roles": [{"name": "member"}]}})
        known = [made[1]["application_credential"]["id"]]
    lab.state["appcred"] = known[0]
    lab.state["projects"] = {name: ids[name] for name in ("lab-a", "lab-b")}
    lab.state["seeded"] = print_of_all
    lab.save()


# --- what clients read --------------------------------------------------------------------------

def password_auth(lab, user, keystone="keystone"):
    return {"auth": {"auth_url": url(lab, keystone), "username": user, "password": lab.secret(user),
                     "project_name": user, "user_domain_name": "Default",
                     "project_domain_name": "Default"}}


def clouds(lab):
    ca = str(lab.root / "tls/ca.pem")
    base = {"identity_api_version": "3", "interface": "public"}
    quiet = {**base, "region_name": region("noranges")}
    every = {}
    for part, (_, _, tls, name) in VARIANTS.items():
        auth = password_auth(lab, "lab-a", "keystone-tls" if tls else "keystone")
        every[f"lab-{part}"] = {**auth, **base, "region_name": name, **({"cacert": ca} if tls else {})}
    every["lab-appcred"] = {
        "auth_type": "v3applicationcredential",
        "auth": {"auth_url": url(lab, "keystone"), "application_credential_id": lab.state["appcred"],
                 "application_credential_secret": lab.secret("appcred")}, **quiet}
    every["lab-b"] = {**password_auth(lab, "lab-b"), **quiet}
    every["lab-admin"] = {**password_auth(lab, "admin"), **quiet}
    # The catalogue of its region leads to a Glance with ranges: whoever gets one has not
    # obeyed the override.
    every["lab-override"] = {**password_auth(lab, "lab-a"), **base, "region_name": region("ranges"),
                             "image_endpoint_override": url(lab, "noranges")}
    return every


def yaml(value, depth=0):
    """Block YAML of nested dicts; a JSON string is a YAML string."""
    lines = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines += [f"{'  ' * depth}{key}:", *yaml(item, depth + 1)]
        else:
            lines.append(f"{'  ' * depth}{key}: {json.dumps(item)}")
    return lines


def openrc(lab):
    return {"OS_AUTH_URL": url(lab, "keystone"), "OS_IDENTITY_API_VERSION": "3",
            "OS_USERNAME": "lab-a", "OS_PASSWORD": lab.secret("lab-a"), "OS_PROJECT_NAME": "lab-a",
            "OS_USER_DOMAIN_NAME": "Default", "OS_PROJECT_DOMAIN_NAME": "Default",
            "OS_REGION_NAME": region("noranges"), "OS_INTERFACE": "public"}


def describe(lab):
    """lab.json: what a test may want to know."""
    every = clouds(lab)
    client = lab.venv / "bin/openstack"
    return {
        "version": VERSION,
        "lab": str(lab.root),
        "log": str(lab.log),
        "keystone": url(lab, "keystone"),
        "keystone_tls": url(lab, "keystone-tls"),
        "ca": str(lab.root / "tls/ca.pem"),
        "clouds_yaml": str(lab.root / "clouds.yaml"),
        "openrc": str(lab.root / "openrc"),
        "nova": url(lab, NOVA),
        "token_ttl": lab.state["token_ttl"],
        "variants": {part: {
            "url": url(lab, part), "region": name, "cloud": f"lab-{part}", "server": server,
            "ranges": ranges, "tls": tls} for part, (server, ranges, tls, name) in VARIANTS.items()},
        "clouds": sorted(every),
        "users": {user: {"project": user, "password": lab.secret(user)}
                  for user in ("lab-a", "lab-b", "admin")},
        "projects": lab.state["projects"],
        "application_credential": {"id": lab.state["appcred"], "secret": lab.secret("appcred")},
        "stores": {name: str(lab.root / "store" / name) for name in ("fs", "fs2")},
        "default_store": "fs",
        "client": str(client) if client.exists() else None,
        "pids": {part: lab.leader(part) for part in PARTS},
    }


def write_clients(lab):
    write_file(lab.root / "clouds.yaml", "\n".join(yaml({"clouds": clouds(lab)})) + "\n")
    # Left-over settings of another cloud would be mixed with these.
    text = "for name in $(env | sed -n 's/^\\(OS_[A-Z0-9_]*\\)=.*/\\1/p'); do unset \"$name\"; done\n"
    text += "".join(f"export {name}={value}\n" for name, value in openrc(lab).items())
    write_file(lab.root / "openrc", text)
    write_file(lab.root / "lab.json", json.dumps(describe(lab), indent=1) + "\n")


def fresh_token(lab, cloud):
    """A new token for a cloud's credentials: (Keystone client, token body, cloud)."""
    settings = clouds(lab).get(cloud)
    if settings is None:
        raise LabError(f"no cloud {cloud}; there are {', '.join(sorted(clouds(lab)))}")
    auth = settings["auth"]
    keystone = Keystone(lab, auth["auth_url"])
    if "application_credential_id" in auth:
        body = keystone.login_application(auth["application_credential_id"],
                                          auth["application_credential_secret"])
    else:
        body = keystone.login(auth["username"], auth["password"], auth["project_name"])
    return keystone.token, body, settings
