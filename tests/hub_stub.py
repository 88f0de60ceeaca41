"""A Hub on the loopback interface: repositories in memory, with the end points that a push and a load use.

Processes that are to use it run with `stub.environment(home)`, which has to be set before anything of Hugging Face is
imported. Every file is uploaded inside its commit; large-file storage is not offered.
"""

import base64
import hashlib
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

API = re.compile(r"/api/(?P<kind>model|dataset|space)s/(?P<id>[^/]+/[^/]+?)(?:/(?P<action>[a-z-]+)(?:/(?P<rest>.*))?)?")
FILE = re.compile(r"/(?:(?P<kind>dataset|space)s/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
TOKEN = "hf_dummy"


class HubStub:
    """Context manager; `repos[kind, id]` holds a repository's files by path, `served` what was sent of which file."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], dict[str, bytes]] = {}
        self.served: list[tuple[str, int]] = []
        handler = type("Handler", (_Handler,), {"repos": self.repos, "served": self.served})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> "HubStub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path) -> dict[str, str]:
        """The environment of a process whose only Hub is this one and whose caches lie in `home`."""
        ours = {
            "HF_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "HF_HOME": str(home),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "NO_PROXY": "127.0.0.1",
        }
        return {**os.environ, **ours}


class _Handler(BaseHTTPRequestHandler):
    repos: dict[tuple[str, str], dict[str, bytes]]
    served: list[tuple[str, int]]

    def do_GET(self) -> None:
        if match := FILE.fullmatch(unquote(self.path.partition("?")[0])):
            self._send_file(match)
        elif self._path() == "/api/whoami-v2":
            self._send({"name": "user", "type": "user", "orgs": []})
        else:
            self._on_repository(self._body())

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self._body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send({"error": "Invalid username or password."}, status=401)
        elif self._path() == "/api/repos/create":
            self._create(json.loads(body))
        elif self._path() == "/api/validate-yaml":
            self._send({"errors": [], "warnings": []})
        else:
            self._on_repository(body)

    def _create(self, request: dict[str, Any]) -> None:
        key = (request.get("type", "model"), f"{request.get('organization') or 'user'}/{request['name']}")
        status = 409 if key in self.repos else 200
        self.repos.setdefault(key, {})
        self._send({"url": self._url(*key), "id": key[1]}, status=status)

    def _on_repository(self, body: bytes) -> None:
        match = API.fullmatch(self._path())
        files = self.repos.get((match["kind"], match["id"])) if match else None
        if match is None or files is None:
            self._send({"error": "Repository not found"}, status=404, headers={"X-Error-Code": "RepoNotFound"})
        elif match["action"] == "preupload":
            asked = json.loads(body)["files"]
            self._send({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]})
        elif match["action"] == "commit":
            _apply(files, [json.loads(line) for line in body.splitlines()])
            url = f"{self._url(match['kind'], match['id'])}/commit/{_commit(files)}"
            self._send({"commitUrl": url, "commitOid": _commit(files)})
        elif match["action"] in ("tree", "revision") and match["rest"].partition("/")[0] not in (
            "main",
            _commit(files),
        ):
            self._send({"error": "Invalid rev id"}, status=404, headers={"X-Error-Code": "RevisionNotFound"})
        elif match["action"] == "tree":
            self._send([_entry(path, content) for path, content in files.items()])
        elif match["action"] == "paths-info":
            self._send([_entry(path, files[path]) for path in _asked_paths(body) if path in files])
        else:
            siblings = [{"rfilename": path} for path in files]
            self._send({"id": match["id"], "sha": _commit(files), "private": False, "tags": [], "siblings": siblings})

    def _send_file(self, match: re.Match[str]) -> None:
        files = self.repos.get((match["kind"] or "model", match["id"]))
        content = (files or {}).get(match["path"])
        if files is None or content is None or not _has_revision(files, match["revision"]):
            code = "RepoNotFound" if files is None else "EntryNotFound"
            self._send({"error": code}, status=404, headers={"X-Error-Code": code})
            return
        headers = {"X-Repo-Commit": _commit(files), "ETag": f'"{_sha(content)}"'}
        status = 200
        if asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            status, content = 206, content[first : last + 1]
        if self.command == "GET":
            self.served.append((match["path"], len(content)))
        self._send(content, status=status, headers=headers)

    def _url(self, kind: str, id: str) -> str:
        prefix = "" if kind == "model" else f"{kind}s/"
        return f"http://{self.headers['Host']}/{prefix}{id}"

    def _path(self) -> str:
        return unquote(self.path.partition("?")[0])

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: a test's output is its own."""


def _apply(files: dict[str, bytes], operations: list[dict[str, Any]]) -> None:
    for operation in operations:
        value = operation["value"]
        if operation["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif operation["key"] == "deletedFile":
            del files[value["path"]]


def _has_revision(files: dict[str, bytes], rest: str) -> bool:
    return rest.partition("/")[0] in ("main", _commit(files))  # one branch and no tags


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": _sha(content)}


def _asked_paths(body: bytes) -> list[str]:
    return json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]


def _commit(files: dict[str, bytes]) -> str:
    return _sha(repr(sorted((path, _sha(content)) for path, content in files.items())).encode())


def _sha(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
