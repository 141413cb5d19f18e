"""A stand-in for the Hugging Face Hub: just the requests that uploading and downloading make."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class StandInHub(ThreadingHTTPServer):
    """Repositories in memory, each with one branch and its newest commit only."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit_of(self, repository: str) -> str:
        files = self.repositories[repository]
        listing = json.dumps({path: git_oid(content) for path, content in sorted(files.items())})
        return hashlib.sha1(listing.encode()).hexdigest()


@contextmanager
def running_hub() -> Iterator[StandInHub]:
    with StandInHub() as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: StandInHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = self._parts()
        if parts[:2] == ["api", "models"]:
            self._describe("/".join(parts[2:4]), parts[4:])
        else:
            self._send_file("/".join(parts[:2]), parts[2:])

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        parts, body = self._parts(), self._body()
        if parts == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif parts == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif parts[4:5] == ["preupload"]:
            self._plan("/".join(parts[2:4]), json.loads(body)["files"])
        elif parts[4:5] == ["commit"]:
            self._commit("/".join(parts[2:4]), body)
        else:
            self._refuse(404, "EntryNotFound")

    def _create(self, wanted: dict[str, Any]) -> None:
        repository = f"{wanted['organization']}/{wanted['name']}"
        if repository.startswith("forbidden/"):
            self._refuse(403, "Forbidden")
            return
        known = repository in self.server.repositories
        self.server.repositories.setdefault(repository, {})
        address = f"{self.server.address}/{repository}"
        self._json({"url": address, "name": repository}, status=409 if known else 200)

    def _plan(self, repository: str, wanted: list[dict[str, Any]]) -> None:
        known = self.server.repositories[repository]
        plan = [
            {
                "path": file["path"],
                "uploadMode": "regular",
                "shouldIgnore": False,
                "oid": git_oid(known[file["path"]]) if file["path"] in known else None,
            }
            for file in wanted
        ]
        self._json({"files": plan})

    def _commit(self, repository: str, body: bytes) -> None:
        for line in body.splitlines():
            operation = json.loads(line)
            if operation["key"] == "file":
                content = base64.b64decode(operation["value"]["content"])
                self.server.repositories[repository][operation["value"]["path"]] = content
        commit = self.server.commit_of(repository)
        address = f"{self.server.address}/{repository}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": address})

    def _describe(self, repository: str, rest: list[str]) -> None:
        if repository not in self.server.repositories:
            self._refuse(401, "RepoNotFound")
            return
        files = self.server.repositories[repository]
        commit = self.server.commit_of(repository)
        if rest[:1] == ["tree"]:
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
                for path, content in files.items()
            ]
            self._json(entries)
        else:
            siblings = [{"rfilename": path} for path in files]
            self._json({"id": repository, "sha": commit, "siblings": siblings})

    def _send_file(self, repository: str, rest: list[str]) -> None:
        if repository not in self.server.repositories:
            self._refuse(401, "RepoNotFound")
            return
        path, files = "/".join(rest[2:]), self.server.repositories[repository]
        if rest[:1] != ["resolve"] or path not in files:
            self._refuse(404, "EntryNotFound")
            return
        content = files[path]
        headers = {
            "ETag": f'"{git_oid(content)}"',
            "X-Repo-Commit": self.server.commit_of(repository),
            "Content-Type": "application/octet-stream",
        }
        self._send(200, content, headers)

    def _parts(self) -> list[str]:
        path = urlsplit(self.path).path
        self.server.requests.append(f"{self.command} {path}")
        return path.strip("/").split("/")

    def _body(self) -> bytes:
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""
