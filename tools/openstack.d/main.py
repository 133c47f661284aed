"""Commands of tools/openstack; see `help`."""
import argparse
import os
import shlex
import shutil
import signal
import sys
import time

import install
import parts
import seed
from lab import Lab, LabError, say

HELP = """\
tools/openstack up [--with-client] [--token-ttl SECONDS]
    Install, start, repair and fill the lab; at once where nothing is to be done. A token lifetime
    stays until `down`; --with-client adds the `openstack` command (in the lab's venv/bin).
tools/openstack down [--purge]      stop everything; --purge: remove all but the virtual environment
tools/openstack status              what runs, and where; status 1 unless all of it answers
tools/openstack env [--token] [--cloud NAME]
    shell exports: where clouds.yaml is; --token: a fresh token in OS_* variables instead of OS_CLOUD
tools/openstack token [--cloud NAME]                    print a fresh token
tools/openstack restart|kill|pause|resume PART...       for fault tests (kill is SIGKILL)
Parts: {parts}.
SNAPCOW_LAB: the lab's folder (target/lab). SNAPCOW_LAB_VENV: its virtual environment (LAB/venv).
SNAPCOW_PYTHON: the Python to install with (python3).
""".format(parts=", ".join(parts.PARTS))


def up(lab, with_client, ttl):
    begin = time.monotonic()
    with lab.locked():
        if ttl is not None:
            lab.state["token_ttl"] = ttl
        install.ensure_venv(lab, with_client)
        install.ensure_tls(lab)
        for part in ["setup", *parts.PARTS]:
            if not lab.leader(part):
                # Strays of a run that was cut off would keep the port and the database.
                lab.stop([part])
                if part in parts.PARTS:
                    lab.choose_port(part)
        lab.save()
        install.write_config(lab)
        install.ensure_database(lab)
        # Glance loads while Keystone is filled; it asks Keystone only with the first token.
        identity = parts.ensure(lab, list(parts.KEYSTONES))
        glances = parts.ensure(lab, list(parts.VARIANTS))
        compute = parts.ensure(lab, [parts.NOVA])
        parts.wait(lab, identity)
        seed.seed(lab)
        parts.wait(lab, glances + compute)
        check(lab, glances)
        seed.write_clients(lab)
    started = ", ".join(identity + glances + compute) or "nothing"
    say(f"up after {time.monotonic() - begin:.1f} s (started: {started})")


def check(lab, glances):
    """One request with a token through every new Glance: proves the way to Keystone too."""
    if not glances:
        return
    token, _, _ = seed.fresh_token(lab, "lab-noranges")
    for part in glances:
        glance = seed.Keystone(lab, parts.url(lab, part))
        glance.token = token
        try:
            glance.call("GET", "/v2/images?limit=1")
        except LabError as error:
            parts.fail(lab, part, f"does not list images: {error}")


def down(lab, purge):
    with lab.locked():
        lab.stop(["setup", *parts.PARTS])
        lab.state.pop("token_ttl", None)
        lab.save()
        # They would send tests to servers that are gone.
        for name in ("lab.json", "clouds.yaml", "openrc"):
            (lab.root / name).unlink(missing_ok=True)
        if purge:
            for path in lab.root.iterdir():
                # The lock stays: another run may be waiting for it.
                if path == lab.venv or path.name == "lock":
                    continue
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    say("down" + (", purged" if purge else ""))


def status(lab):
    lab.load()
    good = True
    for part in parts.PARTS:
        known = part in lab.state["ports"]
        state = parts.health(lab, part) if known else "down"
        good = good and state in ("up", "busy")
        where = parts.url(lab, part) if known else "-"
        count = len(lab.members(part))
        print(f"{part:13} {state:7} {lab.leader(part) or '-':>8} {count:>2} processes  {where}")
    return 0 if good else 1


def need_up(lab):
    lab.load()
    if not (lab.root / "lab.json").exists():
        raise LabError("the lab is not up: tools/openstack up")


def env(lab, cloud, token):
    need_up(lab)
    values = {"OS_CLIENT_CONFIG_FILE": str(lab.root / "clouds.yaml"), "SNAPCOW_LAB": str(lab.root)}
    if token:
        cloud = cloud or "lab-noranges"
        ticket, body, settings = seed.fresh_token(lab, cloud)
        values.update({
            "OS_AUTH_TYPE": "v3token", "OS_TOKEN": ticket, "OS_AUTH_URL": settings["auth"]["auth_url"],
            "OS_IDENTITY_API_VERSION": "3", "OS_PROJECT_ID": body["project"]["id"],
            "OS_REGION_NAME": settings["region_name"], "OS_INTERFACE": "public"})
        if "cacert" in settings:
            values["OS_CACERT"] = settings["cacert"]
    elif cloud:
        values["OS_CLOUD"] = cloud
    for name, value in values.items():
        print(f"export {name}={shlex.quote(value)}")


def fault(lab, command, names):
    with lab.locked():
        need_up(lab)
        if command in ("kill", "restart"):
            lab.stop(names, hard=command == "kill")
        if command == "restart":
            started = parts.ensure(lab, names)
            parts.wait(lab, started)
        if command in ("pause", "resume"):
            for name in names:
                for pid in lab.members(name):
                    os.kill(pid, signal.SIGSTOP if command == "pause" else signal.SIGCONT)
        seed.write_clients(lab)


def seconds(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def main():
    parser = argparse.ArgumentParser(prog="tools/openstack", usage=HELP, add_help=False)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name):
        return commands.add_parser(name, usage=HELP, add_help=False)
    add("help")
    add("status")
    one = add("up")
    one.add_argument("--with-client", action="store_true")
    one.add_argument("--token-ttl", type=seconds)
    add("down").add_argument("--purge", action="store_true")
    one = add("env")
    one.add_argument("--token", action="store_true")
    one.add_argument("--cloud")
    add("token").add_argument("--cloud", default="lab-noranges")
    for name in ("restart", "kill", "pause", "resume"):
        add(name).add_argument("parts", nargs="+", choices=parts.PARTS)
    asked = parser.parse_args(["help" if word in ("-h", "--help") else word for word in sys.argv[1:]])

    lab = Lab()
    if asked.command == "help":
        print(HELP, end="")
    elif asked.command == "up":
        up(lab, asked.with_client, asked.token_ttl)
    elif asked.command == "down":
        down(lab, asked.purge)
    elif asked.command == "status":
        return status(lab)
    elif asked.command == "env":
        env(lab, asked.cloud, asked.token)
    elif asked.command == "token":
        need_up(lab)
        print(seed.fresh_token(lab, asked.cloud)[0])
    else:
        fault(lab, asked.command, asked.parts)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of `status` or `env` has seen enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
