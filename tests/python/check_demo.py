"""Checks what `tendon demo --json` wrote: the keys that others rely on, and that nothing was lost."""

import json
import sys

KEYS = {
    "samples_sent", "samples_stored", "samples_replayed", "duplicates_removed", "acknowledged_lost",
    "connections_cut", "server_kills", "ack_ms", "streams", "episodes", "dataset", "findings",
}

report = json.load(open(sys.argv[1]))
assert set(report) == KEYS, f"keys differ: {sorted(set(report) ^ KEYS)}"
assert set(report["ack_ms"]) == {"p50", "p99"}, report["ack_ms"]
for stream in report["streams"]:
    assert set(stream) == {"name", "declared_hz", "measured_hz", "longest_gap_ms"}, stream
assert report["acknowledged_lost"] == 0, report
assert report["samples_stored"] == report["samples_sent"], report
assert report["connections_cut"] >= 1 and report["server_kills"] >= 1, report
assert report["findings"] == [], report["findings"]
assert report["episodes"] == 3, report
print(json.dumps({key: report[key] for key in sorted(KEYS - {"streams"})}))
