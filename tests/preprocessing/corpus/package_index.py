"""A package index on this machine that serves what a test tells it to, whole, changed or stalled in the middle."""

import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class PackageIndex:
    """`files`: name -> bytes. While `stalled` is set a download stops half-way; `half_sent` says that one did."""

    def __init__(self, files):
        self.files = files
        self.stalled = threading.Event()
        self.half_sent = threading.Event()
        self.downloads = 0

    def environment(self, port):
        """What makes pip ask this index only."""
        return {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple",
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_FIND_LINKS": "",
            "PIP_NO_CACHE_DIR": "1",
            "PIP_RETRIES": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }


@contextmanager
def serve(files):
    """Yield (index, environment variables for pip)."""
    index = PackageIndex(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rsplit("/", 1)[-1]
            if name in index.files:
                index.downloads += 1
                self.answer("application/octet-stream", index.files[name])
            else:
                links = "".join(f'<a href="/files/{file}">{file}</a>' for file in index.files)
                self.answer("text/html", f"<!DOCTYPE html><html><body>{links}</body></html>".encode())

        def answer(self, kind, data):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if kind == "text/html" or not index.stalled.is_set():
                self.wfile.write(data)
                return
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            index.half_sent.set()
            while index.stalled.is_set():
                threading.Event().wait(0.05)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield index, index.environment(server.server_port)
    finally:
        index.stalled.clear()
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
