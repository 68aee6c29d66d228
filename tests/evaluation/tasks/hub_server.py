"""The hub's API as far as downloads need it, on this machine, serving folders that a test wrote."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "b" * 40


class FakeHub:
    """`repos`: owner/name -> folder. Files in `broken` are answered with an error; `downloads` are paths that were sent."""

    def __init__(self, repos: dict[str, Path]) -> None:
        self.repos, self.broken, self.downloads = repos, set(), []

    def files(self, repo: str) -> dict[str, bytes]:
        folder = self.repos[repo]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@contextmanager
def serve_hub(repos: dict[str, Path]):
    """Yield (hub, environment variables that make huggingface_hub ask it only)."""
    hub = FakeHub(repos)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(True)

        def do_HEAD(self):
            self.answer(False)

        def answer(self, body):
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if parts[:2] == ["api", "datasets"] and "/".join(parts[2:4]) in hub.repos:
                files = hub.files("/".join(parts[2:4])).items()
                if parts[4] == "tree":
                    rows = [{"type": "file", "path": name, "size": len(data), "oid": etag(data)} for name, data in files]
                else:
                    rows = {"id": "/".join(parts[2:4]), "sha": COMMIT, "siblings": [{"rfilename": name} for name, _ in files]}
                return self.send(200, json.dumps(rows).encode(), body)
            name = "/".join(parts[5:])
            if parts[0] == "datasets" and "/".join(parts[1:3]) in hub.repos and name not in hub.broken:
                data = hub.files("/".join(parts[1:3])).get(name)
                if data is not None:
                    if body:
                        hub.downloads.append(name)
                    return self.send(200, data, body, {"ETag": f'"{etag(data)}"', "X-Repo-Commit": COMMIT})
            return self.send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})

        def send(self, status, data, body, headers=()):
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **dict(headers)}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    try:
        yield hub, environment
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
