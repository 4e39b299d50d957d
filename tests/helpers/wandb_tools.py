"""Reading back what W&B wrote offline, and a stand-in for its server."""

import gzip
import json
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

from tests.helpers.commands import SMALL

SHORT = ["source.clips=64", "trainer.max_epochs=2", "data.batch_size=20", *SMALL]

_BLOCK, _HEADER = 32768, 7


def records(path: Path) -> Iterator[Record]:
    """Of a .wandb file: messages in the log format of LevelDB after a header of seven bytes."""
    data = path.read_bytes()
    assert data[:4] == b":W&B", path
    at, message = 7, b""
    while at + _HEADER <= len(data):
        if _BLOCK - at % _BLOCK < _HEADER:  # padding
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)  # kind: full, first, middle, last
        part = data[at + _HEADER : at + _HEADER + length]
        message = part if kind in (1, 2) else message + part
        at += _HEADER + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(message)
            yield record


class Written:
    """What one folder `offline-run-*` holds.

    Args:
        folder: It.
    """

    def __init__(self, folder: Path):
        self.folder, [file] = folder, folder.glob("*.wandb")
        self.history: list[dict[str, Any]] = []
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.axes: dict[str, str] = {}
        """Metric, or pattern of metrics -> the one that it is drawn over."""
        self.artifacts: dict[str, list[str]] = {}
        """Name -> paths in it, of the artifacts with models."""
        for record in records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
            elif kind == "history":
                self.history.append(_values(record.history.item))
            elif kind == "config":
                self.config |= _values(record.config.update)
            elif kind == "summary":
                self.summary |= _values(record.summary.update)
            elif kind == "metric":
                name = record.metric.name or record.metric.glob_name
                self.axes[name] = record.metric.step_metric
            elif kind == "artifact" and record.artifact.type == "model":
                contents = record.artifact.manifest.contents
                self.artifacts[record.artifact.name] = [entry.path for entry in contents]

    def series(self, key: str) -> dict[int, float]:
        """Epoch -> value."""
        return {row["epoch"]: row[key] for row in self.history if key in row}

    def media(self, key: str) -> tuple[dict[str, Any], list[Path]]:
        """What the history says of an image, a video or a table, and its files."""
        [value] = [row[key] for row in self.history if key in row]
        names = value.get("filenames") or [video["path"] for video in value.get("videos", [])]
        return value, [self.folder / "files" / name for name in names or [value["path"]]]


def _values(items: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in items:
        *path, last = item.nested_key or [item.key]
        node = values
        for key in path:
            node = node.setdefault(key, {})
        node[last] = json.loads(item.value_json)
    return values


def environment(home: Path) -> dict[str, str]:
    """Of a command that writes offline, and nowhere but into its run folder and `home`."""
    folders = {f"WANDB_{name}_DIR": str(home / name) for name in ("DATA", "CACHE", "CONFIG")}
    return {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(home), **folders}


def offline_runs(folder: Path) -> list[Written]:
    """Of a run folder, in order of time."""
    wandb.teardown()  # waits until everything is on the disk
    return [Written(path) for path in sorted((folder / "wandb").glob("offline-run-*"))]


def events(folder: Path) -> EventAccumulator:
    """What TensorBoard has of a run folder."""
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0, "images": 0})
    return found.Reload()


class Server(ThreadingHTTPServer):
    """Takes runs as W&B's server does, as far as history and resuming go.

    `history` holds the rows of each run id by their position, `views` the dashboards.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.history: dict[str, dict[int, dict[str, Any]]] = {}
        self.views: dict[str, dict[str, Any]] = {}

    def answer(self, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL query; {} for what is not played."""
        project = {"id": "P", "name": "maskclr_pl", "entity": {"id": "E", "name": "me"}}
        run = variables.get("name")
        rows = self.history.get(run or "")
        bucket = {"id": "B", "name": run, "displayName": run, "project": project, "config": "{}"}
        if name == "Viewer":
            return {"viewer": {"id": "V", "entity": "me", "username": "me", "flags": "{}"}}
        if name == "UpsertBucket" and run:
            self.history.setdefault(run, {})
            return {"upsertBucket": {"bucket": bucket, "inserted": rows is None}}
        if name == "UpsertView2":
            self.views[variables["displayName"]] = json.loads(variables["spec"])
            view = {"id": "V", "name": variables["name"], "spec": "{}", "project": project}
            return {"upsertView": {"view": view, "inserted": True}}
        if name == "RunResumeStatus":
            tail = [json.dumps(rows[max(rows)])] if rows else []
            known = {"historyTail": json.dumps(tail), "historyLineCount": len(rows or ())}
            zero = {"logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]", "tags": []}
            wanted = {"summaryMetrics": "{}", "wandbConfig": json.dumps({"t": 1})}
            found = None if rows is None else {**bucket, **known, **zero, **wanted}
            return {"model": {**project, "bucket": found}}
        return {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:  # the library's name
        self._reply({})

    def do_PUT(self) -> None:
        self._content()
        self._reply({})

    def do_POST(self) -> None:
        content = self._content()
        stream = re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        if self.path == "/graphql":
            query = json.loads(content)
            [name] = re.findall(r"^\s*(?:query|mutation)\s+(\w+)", query["query"])
            data = self.server.answer(name, query.get("variables") or {})
            missing = {"errors": [{"message": f"{name} is not played"}]}
            self._reply({"data": data} if data else missing)
            return
        if stream:
            part = json.loads(content).get("files", {}).get("wandb-history.jsonl")
            for i, line in enumerate(part["content"] if part else ()):
                self.server.history[stream[1]][part["offset"] + i] = json.loads(line)
        self._reply({"exitcode": None, "limits": {}})

    def _content(self) -> bytes:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        packed = self.headers.get("Content-Encoding") == "gzip"
        return gzip.decompress(content) if packed else content

    def _reply(self, values: dict[str, Any]) -> None:
        content = json.dumps(values).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def stand_in() -> Iterator[Server]:
    """A server on a free port of this machine."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
