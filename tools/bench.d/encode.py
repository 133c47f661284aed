"""What `snapcow bench` says of the encode stage: its throughput inside the engine and in a bare loop."""
import json

from meter import Failed

SCHEMA = "snapcow/bench/1"


def take(path, sample):
    """Adds to the sample the share of a bare loop's throughput, the lowest of the file routes.

    The bare loops and the engine work on the same clusters, in one process, on as many threads. In
    the network routes the embedded Glance has its part of the cores: they are noted, not judged.
    """
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Failed(f"snapcow bench wrote no report: {error}") from None
    if report.get("schema") != SCHEMA:
        raise Failed(f"the report of snapcow bench is not {SCHEMA} but {report.get('schema')}")
    shares = {f"{route['route']}, {route['compression']}": route["encode_share_of_bare_loop"]
              for route in report["routes"] if route["encode_share_of_bare_loop"] is not None}
    direct = [route["encode_share_of_bare_loop"] for route in report["routes"]
              if route["taken"] == "direct" and route["encode_share_of_bare_loop"] is not None]
    if not direct:
        raise Failed("the report of snapcow bench has no encode figure of a file route")
    sample["encode_share"] = min(direct)
    sample["encode_shares"] = shares
