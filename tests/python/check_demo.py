"""Checks what `tendon demo --json` wrote, and that its cameras hold exactly the pictures that were sent.

The server keeps each stream's messages as they came in `objects/episodes`; a picture's message is an
envelope of 32 bytes, the JPEG, and a root of 48 bytes (docs/wire.md). Every packet of the dataset's
videos must be one of them, byte for byte and in order.
"""

import json
import pathlib
import sys

import av

KEYS = {
    "samples_sent", "samples_stored", "samples_replayed", "duplicates_removed", "acknowledged_lost",
    "connections_cut", "server_kills", "ack_ms", "streams", "episodes", "dataset", "findings",
}
ENVELOPE_BYTES = 32
MEDIA_ROOT_BYTES = 48


def sent_pictures(path):
    """JPEGs of an episode's camera in the order in which they were captured."""
    content, at = path.read_bytes(), 0
    while at < len(content):
        stored = int.from_bytes(content[at + 12 : at + 16], "little")
        payload = content[at + ENVELOPE_BYTES : at + ENVELOPE_BYTES + stored]
        yield payload[:-MEDIA_ROOT_BYTES]
        at += ENVELOPE_BYTES + stored


def check_report(report):
    assert set(report) == KEYS, f"keys differ: {sorted(set(report) ^ KEYS)}"
    assert set(report["ack_ms"]) == {"p50", "p99"}, report["ack_ms"]
    for stream in report["streams"]:
        assert set(stream) == {"name", "declared_hz", "measured_hz", "longest_gap_ms"}, stream
    assert report["acknowledged_lost"] == 0, report
    assert report["samples_stored"] == report["samples_sent"], report
    assert report["connections_cut"] >= 1 and report["server_kills"] >= 1, report
    assert report["findings"] == [], report["findings"]
    assert report["episodes"] == 3, report


def check_packets(dataset, objects):
    packets = 0
    manifests = sorted(objects.glob("episodes/*/*/manifest.json"))
    for number, manifest in enumerate(map(json.loads, map(pathlib.Path.read_text, manifests))):
        for stream in manifest["streams"]:
            feature = stream["declaration"]["feature"]
            if stream["declaration"]["content"] != "jpeg":
                continue
            sent = list(sent_pictures(objects / stream["object"]["path"]))
            video = sorted((dataset / "videos" / feature).glob("*/*.mp4"))[number]
            at = 0
            with av.open(str(video)) as container:
                for packet in container.demux(video=0):
                    if packet.size == 0:
                        continue
                    # A row shows the newest picture: some are skipped, some are shown twice.
                    while at < len(sent) and bytes(packet) != sent[at]:
                        at += 1
                    assert at < len(sent), f"episode {number}, {feature}: packet {packets} is no picture that was sent"
                    packets += 1
    assert packets > 0, "no packets were compared"
    return packets


def main():
    report = json.load(open(sys.argv[1]))
    check_report(report)
    dataset = pathlib.Path(sys.argv[2])
    packets = check_packets(dataset, pathlib.Path(sys.argv[3]))
    print(json.dumps({"packets_equal_to_sent_jpegs": packets} | {key: report[key] for key in sorted(KEYS - {"streams"})}))


main()
