"""A server of W&B's, as far as a run needs one: it takes everything, and keeps the rows of history and the files."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote


class FakeWandb:
    """What has arrived.

    Attributes:
        rows: of each run, by its id, as they came; an offset in the middle writes over what is there, as W&B's does.
        summaries: of each run.
        files: of each run, by their names; and of each table that was logged as an artifact.
        runs: what each run was last said to be: project, name, group, tags, notes, job type and configuration.
        fails: ids of runs that are refused.
        drops_files: whether files get lost on their way.
        hangs: set while it answers nobody who sends rows.
    """

    def __init__(self) -> None:
        self.address = ""
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.summaries: dict[str, dict[str, Any]] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.fails: set[str] = set()
        self.drops_files = False
        self.hangs = threading.Event()

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        run = variables.get("name") or ""
        bucket = {
            "id": run, "name": run, "displayName": run, "description": None, "config": "{}", "sweepName": None,
            "project": {"id": "p", "name": variables.get("project") or "lit_vae", "entity": {"id": "e", "name": "me"}},
            "historyLineCount": len(self.rows.get(run, [])), "summaryMetrics": json.dumps(self.summaries.get(run, {})),
        }  # fmt: skip
        if "mutation UpsertBucket" in query:
            if run in self.fails:
                return {"errors": [{"message": "permission denied"}]}
            self.rows.setdefault(run, [])
            self.runs.setdefault(run, {}).update({name: value for name, value in variables.items() if value})
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        if "viewer" in query:
            me = {"id": "u", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
            return {"data": {"viewer": me}}
        if "query RunFiles" in query:
            return {"data": {"project": {"internalId": "1", "run": self._files(run)}}}
        if "query Run(" in query or "query RunHistoryKeys" in query:
            last = self.rows.get(run, [])[-1:]
            found = bucket | {
                "projectId": "1", "tags": [], "state": "finished", "user": {"name": "me", "username": "me"},
                "historyKeys": {"lastStep": last[0]["_step"] if last else -1, "keys": {}}, "systemMetrics": "{}",
                "readOnly": False, "createdAt": "2026-01-01T00:00:00",
            }  # fmt: skip
            return {"data": {"project": {"run": found if run in self.rows else None}}}
        if "RunResumeStatus" in query:
            return {"data": {"model": {"id": "p", "name": "lit_vae", "bucket": self._resume(run, bucket)}}}
        if "CreateRunFiles" in query:
            run = variables["run"]
            files = [
                {"name": name, "uploadUrl": f"{self.address}/put/{run}/{quote(name)}"} for name in variables["files"]
            ]
            return {"data": {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}}
        return {"data": self._artifact(query, variables)}

    def _artifact(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Answers while an artifact is uploaded: its id is its name."""
        given = variables.get("input") or {}
        if "mutation CreateArtifact (" in query:
            name = given["artifactCollectionName"]
            sequence = {"id": name, "latestArtifact": None}
            return {"createArtifact": {"artifact": {"id": name, "state": "PENDING", "artifactSequence": sequence}}}
        if "ArtifactManifest (" in query:
            mutation = "createArtifactManifest" if "mutation Create" in query else "updateArtifactManifest"
            owner = variables.get("artifactID") or variables["artifactManifestID"]
            file = {"id": owner, "name": "m", "displayName": "m", **self._upload(owner, "manifest.json")}
            return {mutation: {"artifactManifest": {"id": owner, "file": file}}}
        if "mutation CreateArtifactFiles" in query:
            nodes = [
                {"id": file["name"], "name": file["name"], "displayName": file["name"], "storagePath": file["name"],
                 "uploadMultipartUrls": None, "artifact": {"id": file["artifactID"]},
                 **self._upload(file["artifactID"], file["name"])}
                for file in given["artifactFiles"]
            ]  # fmt: skip
            return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
        if "mutation CommitArtifact" in query:
            return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": ""}}}
        return {"project": {"artifact": None}} if "query ArtifactType(" in query else {}

    def _upload(self, owner: str, name: str) -> dict[str, Any]:
        return {"uploadUrl": f"{self.address}/put/{owner}/{quote(name)}", "uploadHeaders": []}

    def _files(self, run: str) -> dict[str, Any]:
        nodes = [
            {"id": name, "name": name, "url": "", "directUrl": "", "sizeBytes": len(content), "mimetype": "",
             "updatedAt": "2026-01-01T00:00:00", "md5": ""}
            for name, content in self.files.get(run, {}).items()
        ]  # fmt: skip
        edges = [{"node": node, "cursor": node["id"]} for node in nodes]
        return {"fileCount": len(nodes), "files": {"edges": edges, "pageInfo": {"hasNextPage": False}}}

    def _resume(self, run: str, bucket: dict[str, Any]) -> dict[str, Any] | None:
        if run not in self.rows:
            return None
        tail = [json.dumps(row) for row in self.rows[run][-1:]]
        return bucket | {
            "logLineCount": 0, "eventsLineCount": 0, "historyTail": json.dumps(tail),
            "eventsTail": "[]", "tags": [], "wandbConfig": '{"t": 1}',
        }  # fmt: skip

    def stream(self, run: str, sent: dict[str, Any]) -> None:
        files = sent.get("files") or {}
        if history := files.get("wandb-history.jsonl"):
            rows = [json.loads(line) for line in history["content"]]
            self.rows[run][history["offset"] :] = rows
        if summary := files.get("wandb-summary.json"):
            self.summaries[run] = json.loads(summary["content"][-1])

    def put(self, path: str, content: bytes) -> None:
        _, _, run, name = path.split("/", 3)  # a run, or an artifact
        self.files.setdefault(run, {})[unquote(name)] = b"" if self.drops_files else content


@contextmanager
def fake_wandb() -> Iterator[tuple[FakeWandb, str]]:
    """The server and its address, while it is entered."""
    state = FakeWandb()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            answer: dict[str, Any] = {}
            if self.path.endswith("/graphql"):
                asked = json.loads(body)
                answer = state.graphql(asked["query"], asked.get("variables") or {})
            elif self.path.endswith("/file_stream"):
                if state.hangs.is_set():
                    while state.hangs.is_set():
                        time.sleep(0.05)
                    return
                state.stream(self.path.split("/")[-2], json.loads(body))
            elif self.path.startswith("/put/"):
                state.put(self.path, body)
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_PUT = do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        state.address = f"http://127.0.0.1:{server.server_port}"
        try:
            yield state, state.address
        finally:
            server.shutdown()
