"""A server of W&B's, as far as an upload needs one: it takes everything, and keeps the rows of history."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeWandb:
    """What has arrived.

    Attributes:
        rows: of each run, by its id, as they came; an offset in the middle writes over what is there, as W&B's does.
        fails: ids of runs that are refused.
    """

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.fails: set[str] = set()

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        run = variables.get("name") or ""
        bucket = {
            "id": run, "name": run, "displayName": run, "description": None, "config": "{}", "sweepName": None,
            "project": {"id": "p", "name": "lit_vae", "entity": {"id": "e", "name": "me"}},
            "historyLineCount": len(self.rows.get(run, [])),
        }  # fmt: skip
        if "mutation UpsertBucket" in query:
            if run in self.fails:
                return {"errors": [{"message": "permission denied"}]}
            self.rows.setdefault(run, [])
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        if "viewer" in query:
            me = {"id": "u", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
            return {"data": {"viewer": me}}
        if "query Run(" in query or "query RunHistoryKeys" in query:
            last = self.rows.get(run, [])[-1:]
            found = bucket | {
                "projectId": "1", "tags": [], "state": "finished", "user": {"name": "me", "username": "me"},
                "historyKeys": {"lastStep": last[0]["_step"] if last else -1, "keys": {}}, "systemMetrics": "{}",
                "summaryMetrics": "{}", "readOnly": False, "createdAt": "2026-01-01T00:00:00",
            }  # fmt: skip
            return {"data": {"project": {"run": found if run in self.rows else None}}}
        if "RunResumeStatus" in query:
            return {"data": {"model": {"id": "p", "name": "lit_vae", "bucket": self._resume(run, bucket)}}}
        if "CreateRunFiles" in query:
            return {"data": {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": []}}}
        return {"data": {}}

    def _resume(self, run: str, bucket: dict[str, Any]) -> dict[str, Any] | None:
        if run not in self.rows:
            return None
        tail = [json.dumps(row) for row in self.rows[run][-1:]]
        return bucket | {
            "summaryMetrics": "{}", "logLineCount": 0, "eventsLineCount": 0, "historyTail": json.dumps(tail),
            "eventsTail": "[]", "tags": [], "wandbConfig": '{"t": 1}',
        }  # fmt: skip

    def stream(self, run: str, sent: dict[str, Any]) -> None:
        history = (sent.get("files") or {}).get("wandb-history.jsonl")
        if history:
            rows = [json.loads(line) for line in history["content"]]
            self.rows[run][history["offset"] :] = rows


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
                state.stream(self.path.split("/")[-2], json.loads(body))
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
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield state, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
