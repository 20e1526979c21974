#!/usr/bin/env python3
"""Loads a LeRobot v3.0 dataset with the official package and reads every frame of it.

    python check_lerobot.py DATASET [EXPECTED.json] [--backends pyav,torchcodec]

Run it with the Python of a venv that has `lerobot[dataset]`. Prints one line of JSON with what was
read and every fault found (the first 50); the exit code is 0 when there is none, 1 when there are
some, 2 when the dataset does not load at all.

Without expectations it checks that both video back ends read every frame of every camera and show the
same picture, that timestamps and indices are those of the format, and that values are finite numbers.

EXPECTED.json: {"episodes": [{
    "task": text,
    "rows": number,                               optional
    "cameras": {key: [sha256 of each packet] or   each packet of the video must be exactly this JPEG;
                     "folder of JPEG files"},     files are taken in the order of their names
    "values": {key: hex}                          rows x elements, row-major, little endian
}, ...]}
"""

import argparse
import hashlib
import json
import os
import pathlib
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import av  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

FAULTS_MAX = 50


class Report:
    """Faults and counts, printed as one line."""

    def __init__(self, dataset):
        self.result = {"dataset": str(dataset), "backends": [], "episodes": 0, "frames": 0, "pictures": 0, "packets": 0, "values": 0}
        self.faults = []
        self.fault_count = 0

    def fault(self, text):
        self.fault_count += 1
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(text)

    def finish(self, code=None):
        self.result.update(fault_count=self.fault_count, faults=self.faults)
        print(json.dumps(self.result, ensure_ascii=False))
        sys.exit(code if code is not None else int(self.fault_count > 0))


def open_dataset(folder, backend):
    return LeRobotDataset("local/check", root=folder, video_backend=backend)


def check_rows(report, dataset):
    """Indices, timestamps and numbers of every row, as a training loop gets them."""
    episodes = dataset.meta.episodes
    fps = dataset.meta.fps
    index = 0
    for number in range(dataset.meta.total_episodes):
        row = episodes[number]
        if (row["episode_index"], row["dataset_from_index"], row["dataset_to_index"]) != (number, index, index + row["length"]):
            report.fault(f"episode {number}: row of meta/episodes says {row['episode_index']}, {row['dataset_from_index']} to {row['dataset_to_index']}")
        index += row["length"]
    if index != len(dataset) or index != dataset.meta.total_frames or index != len(dataset.hf_dataset):
        report.fault(f"{index} rows by meta/episodes, {len(dataset)} by len(), {len(dataset.hf_dataset)} in tables")
    report.result["episodes"] = dataset.meta.total_episodes
    report.result["frames"] = len(dataset)
    for name in ("frame_index", "timestamp", "index", "episode_index", "task_index"):
        column = np.asarray(dataset.hf_dataset.with_format("numpy")[name])
        report.result.setdefault("columns", {})[name] = str(column.dtype)
        expected = {
            "frame_index": lambda n, length, start: np.arange(length),
            "timestamp": lambda n, length, start: (np.arange(length) / fps).astype(np.float32),
            "index": lambda n, length, start: np.arange(start, start + length),
            "episode_index": lambda n, length, start: np.full(length, n),
        }.get(name)
        if expected is None:
            continue
        for number in range(dataset.meta.total_episodes):
            start, stop = episodes[number]["dataset_from_index"], episodes[number]["dataset_to_index"]
            if not np.array_equal(column[start:stop], expected(number, stop - start, start)):
                report.fault(f"episode {number}: {name} is not what the format says")


def check_values(report, folder, dataset, expected):
    """Values bit for bit, read from the tables as stored."""
    import pyarrow.parquet as parquet

    for number, episode in enumerate(expected):
        row = dataset.meta.episodes[number]
        path = folder / dataset.meta.get_data_file_path(number)
        table = parquet.read_table(path)
        inside = np.asarray(table["episode_index"]) == number
        for key, text in episode.get("values", {}).items():
            feature = dataset.meta.features[key]
            column = table[key].combine_chunks()
            width = int(np.prod(feature["shape"]))
            flat = column
            while hasattr(flat, "flatten") and "list" in str(flat.type):
                flat = flat.flatten()
            flat = flat.to_numpy(zero_copy_only=False).reshape(len(table), width)[inside]
            if str(flat.dtype) != feature["dtype"]:
                report.fault(f"episode {number}: {key} is stored as {flat.dtype}, info.json says {feature['dtype']}")
            if flat.astype(flat.dtype.newbyteorder("<")).tobytes() != bytes.fromhex(text):
                report.fault(f"episode {number}: values of {key} differ")
            report.result["values"] += flat.size
            loaded = dataset.hf_dataset.with_format("numpy")[row["dataset_from_index"]:row["dataset_to_index"]][key]
            loaded = np.asarray(loaded).reshape(flat.shape)
            # The numpy view of `datasets` gives float64 as float32; what is stored was compared above.
            if not np.array_equal(loaded, flat.astype(loaded.dtype), equal_nan=flat.dtype.kind == "f"):
                report.fault(f"episode {number}: {key} loads with other values than are stored")
        if "rows" in episode and episode["rows"] != row["length"]:
            report.fault(f"episode {number}: {row['length']} rows, {episode['rows']} expected")


def read_all(report, dataset, backend, expected):
    """Every item in order; returns the pictures of each camera."""
    keys = dataset.meta.video_keys
    pictures = {key: [] for key in keys}
    for index in range(len(dataset)):
        try:
            item = dataset[index]
        except Exception as error:  # noqa: BLE001  whatever the loader raises is the finding
            report.fault(f"{backend}: row {index}: {type(error).__name__}: {error}")
            for key in keys:
                pictures[key].append(None)
            continue
        number = int(item["episode_index"])
        if expected is not None and item["task"] != expected[number]["task"]:
            report.fault(f"{backend}: row {index}: task is {item['task'][:80]!r}")
        for key in keys:
            picture = item[key]
            shape = dataset.meta.features[key]["shape"]
            if tuple(picture.shape) != (shape[2], shape[0], shape[1]):
                report.fault(f"{backend}: row {index}: {key} has shape {tuple(picture.shape)}, declared {shape}")
            pictures[key].append((picture * 255).round().to(torch.uint8))
        for key, value in item.items():
            if key not in keys and torch.is_tensor(value) and value.is_floating_point() and not torch.isfinite(value).all():
                report.fault(f"{backend}: row {index}: {key} is not finite")
    report.result["pictures"] += sum(len(list_) for list_ in pictures.values())
    return pictures


def compare_backends(report, one, two, names):
    """Both back ends must show the same picture; neighbouring frames must not fit better."""
    worst = 0
    for key in one:
        for index, (a, b) in enumerate(zip(one[key], two[key], strict=True)):
            if a is None or b is None:
                continue
            difference = int((a.int() - b.int()).abs().max()) if a.shape == b.shape else 255
            worst = max(worst, difference)
            if difference > 2:
                report.fault(f"row {index}: {key} differs by {difference} of 255 between {names[0]} and {names[1]}")
    report.result["backend_difference_max"] = worst


def check_order(report, folder, dataset, shown, backend):
    """Row k of an episode must show picture k of its part of the file, decoded here from front to back."""
    fps = dataset.meta.fps
    decoded, path_before = [], None
    for key in shown:
        for number in range(dataset.meta.total_episodes):
            row = dataset.meta.episodes[number]
            path = folder / dataset.meta.get_video_file_path(number, key)
            if path != path_before:
                decoded, path_before = [], path
                try:
                    with av.open(str(path)) as container:
                        decoded.extend(frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
                except av.FFmpegError as error:
                    report.fault(f"episode {number}: {key}: {type(error).__name__} after {len(decoded)} pictures")
            first = round(row[f"videos/{key}/from_timestamp"] * fps)
            for k in range(row["length"]):
                picture = shown[key][row["dataset_from_index"] + k]
                if picture is None:
                    continue
                own = torch.from_numpy(decoded[first + k]).permute(2, 0, 1) if first + k < len(decoded) else None
                if own is None or own.shape != picture.shape or int((own.int() - picture.int()).abs().max()) > 2:
                    report.fault(f"{backend}: episode {number} row {k}: {key} does not show picture {first + k} of {path.name}")


def packet_sums(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        step = stream.average_rate, stream.time_base
        times = [packet.pts for packet in packets]
        return [hashlib.sha256(bytes(packet)).hexdigest() for packet in packets], times, step


def check_packets(report, folder, dataset, expected):
    """Each packet of a video is exactly the JPEG that was sent, at exactly its time."""
    fps = dataset.meta.fps
    for number, episode in enumerate(expected):
        for key, sums in episode.get("cameras", {}).items():
            if isinstance(sums, str):
                files = sorted(path for path in pathlib.Path(sums).iterdir() if path.is_file())
                sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
            path = folder / dataset.meta.get_video_file_path(number, key)
            got, times, (rate, base) = packet_sums(path)
            row = dataset.meta.episodes[number]
            first = round(row[f"videos/{key}/from_timestamp"] * fps)
            if rate != fps:
                report.fault(f"episode {number}: {key} has a rate of {rate}, the dataset of {fps}")
            if [time * base * fps for time in times] != list(range(len(times))):
                report.fault(f"episode {number}: {key} has times off the grid of {fps} a second")
            own = got[first:first + len(sums)]
            if own != sums or (first == 0 and len(got) < len(sums)):
                wrong = next((k for k, pair in enumerate(zip(own, sums)) if pair[0] != pair[1]), min(len(own), len(sums)))
                report.fault(f"episode {number}: {key} has {len(own)} packets for {len(sums)} pictures; the first that differs is {wrong}")
            report.result["packets"] += len(own)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=pathlib.Path)
    parser.add_argument("expected", nargs="?", type=pathlib.Path)
    parser.add_argument("--backends", default="pyav,torchcodec")
    arguments = parser.parse_args()
    report = Report(arguments.dataset)
    expected = json.loads(arguments.expected.read_text())["episodes"] if arguments.expected else None
    backends = arguments.backends.split(",")
    try:
        datasets = {backend: open_dataset(arguments.dataset, backend) for backend in backends}
    except Exception as error:  # noqa: BLE001
        report.fault(f"does not load: {type(error).__name__}: {error}")
        report.finish(2)
    first = datasets[backends[0]]
    report.result["backends"] = backends
    check_rows(report, first)
    if expected is not None:
        if len(expected) != first.meta.total_episodes:
            report.fault(f"{first.meta.total_episodes} episodes, {len(expected)} expected")
            report.finish()
        check_values(report, arguments.dataset, first, expected)
        check_packets(report, arguments.dataset, first, expected)
    shown = {backend: read_all(report, dataset, backend, expected) for backend, dataset in datasets.items()}
    check_order(report, arguments.dataset, first, shown[backends[0]], backends[0])
    if len(backends) == 2:
        compare_backends(report, shown[backends[0]], shown[backends[1]], backends)
    report.finish()


if __name__ == "__main__":
    main()
