"""The record of a run: JSON, schema `snapcow/bench-record/1`; benches/README.md describes it."""
import json
import os

from machine import REPO, short_name
from model import BenchError

SCHEMA = "snapcow/bench-record/1"
FOLDER = REPO / "benches/record"


def new_path(record):
    """benches/record/<date>-<short machine>.json, with a number where that is taken."""
    machine = record["machine"]
    stem = f"{record['date'][:10]}-{short_name(machine['cpu'], machine['cores'])}"
    number = 1
    while (path := FOLDER / f"{stem}{'' if number == 1 else f'-{number}'}.json").exists():
        number += 1
    return path


def write(record, path):
    """In one step: a record is never half there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        new.write_text(json.dumps(rounded(record), indent=1) + "\n")
        os.replace(new, path)
    except OSError as error:
        raise BenchError(f"the record cannot be written: {error}") from None


def writable(path):
    """Known before an hour's work rather than after it."""
    folder = path.absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BenchError(f"no record can be written to {folder}: make the folder, or --record FILE")


def rounded(value):
    """Six digits say more than any clock here."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return value


def read(path):
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror or error}") from None
    except ValueError:
        raise BenchError(f"{path} is no record: not JSON") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise BenchError(f"{path} is no record of tools/bench: its schema is not {SCHEMA}")
    lacking = [key for key in ("date", "machine", "versions", "sittings", "rows") if key not in found]
    if lacking:
        raise BenchError(f"{path} is no whole record: it has no {', '.join(lacking)}")
    return found


def merged(records):
    """One record of several, for the table: a later one's rows take the place of an earlier one's.

    Sittings stay with the rows that they belong to: the key gets the record's number.
    """
    rows, sittings, scale = {}, {}, []
    for number, record in enumerate(records):
        for row in record["rows"]:
            rows[row["name"]] = dict(row, sitting=(number, row["sitting"]))
        sittings |= {(number, name): sitting for name, sitting in record["sittings"].items()}
        scale = record.get("scale") or scale
    return {"rows": list(rows.values()), "sittings": sittings, "scale": scale}
