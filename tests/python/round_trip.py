"""Streams real datasets into a server, exports them, and compares every row with its source.

Rows, state and action must be equal bit for bit, capture times to the microsecond, tasks as texts.
Prints one line of JSON per dataset; exits non-zero at the first difference.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

import av
import numpy as np
import pyarrow.parquet as pq

SETS = ["dobot-cr5-v2", "unitree-g1-v2", "gr1-picknplace-v2"]
# Episodes whose videos are there: coded units go through unchanged, and lerobot loads the outcome.
CODED = [("dobot-cr5-v2", "0-2"), ("unitree-g1-v2", "1-2"), ("gr1-picknplace-v2", "0-4"), ("lerobot-reference-v3", "0-2")]
# Intervals over 150 ms in the source, counted from its own timestamps.
GAPS = {"dobot-cr5-v2": 271}


def matrix(column):
    """A column as rows x elements, in its own element type."""
    column = column.combine_chunks()
    flat = column.flatten() if hasattr(column, "flatten") and "list" in str(column.type) else column
    values = flat.to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1)


def source_rows(root):
    info = json.loads((root / "meta/info.json").read_text())
    tasks = {row["task_index"]: row["task"] for row in map(json.loads, (root / "meta/tasks.jsonl").read_text().splitlines()) if row}
    for episode in range(info["total_episodes"]):
        path = info["data_path"].format(episode_chunk=episode // info["chunks_size"], episode_index=episode)
        table = pq.read_table(root / path)
        yield episode, table, tasks


def start_server(tendon, data, log):
    process = subprocess.Popen([tendon, "serve", "--data", data, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=log, text=True)
    for line in process.stdout:
        found = [word for word in line.split() if word.startswith("http://")]
        if found:
            return process, found[0].rstrip("/.,")
    raise SystemExit(f"server did not start, see {log.name}")


def get(url, token):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    return json.load(urllib.request.urlopen(request, timeout=30))


def episodes_of(url, token, session):
    found, cursor = [], ""
    while True:
        page = get(f"{url}/api/v1/sessions/{session}/episodes?limit=100{cursor}", token)
        found += page["episodes"]
        if not page.get("next"):
            return found
        cursor = f"&cursor={page['next']}"


def compare(name, source, exported):
    info = json.loads((exported / "meta/info.json").read_text())
    tables = [pq.read_table(path) for path in sorted((exported / "data").glob("*/*.parquet"))]
    by_episode = {}
    for table in tables:
        for episode in sorted(set(table["episode_index"].to_pylist())):
            mask = np.array(table["episode_index"].to_pylist()) == episode
            by_episode[episode] = table.filter(mask)
    tasks = pq.read_table(exported / "meta/tasks.parquet").to_pydict()
    text_of = dict(zip(tasks["task_index"], tasks["task"]))
    names = info["features"]["capture_time_ns"]["names"]
    rows = 0
    for episode, table, source_tasks in source_rows(source):
        ours = by_episode[episode]
        assert len(ours) == len(table), f"{name} episode {episode}: {len(ours)} rows of {len(table)}"
        for key in ("observation.state", "action"):
            want, got = matrix(table[key]), matrix(ours[key])
            assert want.dtype == got.dtype and want.tobytes() == got.tobytes(), f"{name} episode {episode}: {key} differs"
        stamps = matrix(table["timestamp"]).astype(np.float64)[:, 0]
        captured = matrix(ours["capture_time_ns"])[:, names.index("observation.state")].astype(np.float64)
        error = np.abs((captured - captured[0]) / 1e9 - (stamps - stamps[0])).max()
        assert error <= 1e-6, f"{name} episode {episode}: capture time off by {error * 1e6} us"
        first = source_tasks[int(table["task_index"][0].as_py())]
        assert text_of[ours["task_index"][0].as_py()] == first, f"{name} episode {episode}: task differs"
        rows += len(table)
    assert info["total_frames"] == rows, (info["total_frames"], rows)
    return len(by_episode), rows


def packets(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def compare_videos(name, source, exported, episodes):
    """Every packet of the source's videos, of these episodes, is a packet of ours, in order."""
    info = json.loads((source / "meta/info.json").read_text())
    compared = 0
    for feature in (key for key, value in info["features"].items() if value["dtype"] == "video"):
        if info["codebase_version"] == "v3.0":
            wanted = [packet for path in sorted((source / "videos" / feature).glob("*/*.mp4")) for packet in packets(path)]
        else:
            paths = [info["video_path"].format(episode_chunk=0, video_key=feature, episode_index=episode) for episode in episodes]
            # A feature that is declared and has no video at all was not sent.
            if not any((source / path).exists() for path in paths):
                continue
            wanted = [packet for path in paths for packet in packets(source / path)]
        found = [packet for path in sorted((exported / "videos" / feature).glob("*/*.mp4")) for packet in packets(path)]
        assert found == wanted, f"{name}, {feature}: {len(found)} packets differ from the source's {len(wanted)}"
        compared += len(found)
    assert compared > 0, f"{name}: no packets were compared"
    return compared


def round_trip_with_cameras(options, common):
    for name, chosen in CODED:
        began = time.time()
        source, exported = options.data / name, options.work / f"{name}-cameras"
        sent = subprocess.run(
            [options.tendon, "stream", source, *common, "--speed", "max", "--episodes", chosen, "--dataset", f"{name}-cameras"],
            capture_output=True, text=True,
        )
        assert sent.returncode == 0, f"stream of {name} failed: {sent.stderr[-2000:]}"
        session = sent.stdout.strip().splitlines()[-1]
        done = subprocess.run([options.tendon, "export", session, *common, "--out", exported], capture_output=True, text=True)
        assert done.returncode == 0, f"export of {name} failed: {done.stderr[-2000:]}"
        first, last = (int(number) for number in chosen.split("-"))
        count = compare_videos(name, source, exported, range(first, last + 1))
        checker = pathlib.Path(__file__).with_name("check_lerobot.py")
        loaded = subprocess.run([sys.executable, checker, exported], capture_output=True, text=True)
        assert loaded.returncode == 0, f"lerobot does not load {name}: {loaded.stdout[-2000:]}{loaded.stderr[-2000:]}"
        print(json.dumps({"set": f"{name} with cameras", "packets": count, "seconds": round(time.time() - began, 1)}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tendon", required=True)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--work", required=True, type=pathlib.Path)
    parser.add_argument("--sets", default=",".join(SETS))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    data = options.work / "server"
    token = subprocess.run([options.tendon, "token", "create", "--role", "admin", "--data", data], check=True, capture_output=True, text=True)
    token = token.stdout.strip().splitlines()[-1]
    log = open(options.work / "server.log", "w")
    server, url = start_server(options.tendon, data, log)
    try:
        for name in options.sets.split(","):
            began = time.time()
            source, exported = options.data / name, options.work / name
            common = ["--to", url, "--token", token]
            sent = subprocess.run([options.tendon, "stream", source, *common, "--speed", "max"], capture_output=True, text=True)
            assert sent.returncode == 0, f"stream of {name} failed: {sent.stderr[-2000:]}"
            session = sent.stdout.strip().splitlines()[-1]
            episodes = episodes_of(url, token, session)
            assert all(episode["state"] == "stored" for episode in episodes), {episode["state"] for episode in episodes}
            reports = [stream for episode in episodes for stream in episode["report"]["streams"] if stream["feature"] == "observation.state"]
            gaps = sum(report["gaps"] for report in reports)
            assert name not in GAPS or gaps == GAPS[name], f"{name}: {gaps} gaps reported, {GAPS[name]} are real"
            done = subprocess.run([options.tendon, "export", session, *common, "--out", exported], capture_output=True, text=True)
            assert done.returncode == 0, f"export of {name} failed: {done.stderr[-2000:]}"
            count, rows = compare(name, source, exported)
            checked = subprocess.run([options.tendon, "verify", exported, "--json"], capture_output=True, text=True)
            findings = [finding for finding in json.loads(checked.stdout)["findings"] if finding["severity"] == "error"]
            assert not findings, findings[:3]
            print(json.dumps({"set": name, "episodes": count, "rows": rows, "gaps": gaps, "seconds": round(time.time() - began, 1)}), flush=True)
        if options.sets == ",".join(SETS):
            round_trip_with_cameras(options, ["--to", url, "--token", token])
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
        log.close()
        if sys.exc_info()[0]:
            sys.stderr.write((options.work / "server.log").read_text()[-4000:])


if __name__ == "__main__":
    os.environ.setdefault("RUST_BACKTRACE", "1")
    main()
