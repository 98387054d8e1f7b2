"""As much of the Hugging Face Hub as its client asks for to upload a folder, on loopback; it keeps what it is sent."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

LARGE = (".safetensors", ".gguf")  # go around git, as .gitattributes has it on the hub
WRITES = {"auth": {"type": "access_token", "accessToken": {"displayName": "laptop", "role": "write"}}}


@dataclass
class Repository:
    """Its files, the messages of its commits, and who may see it."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    ignored: str = ""  # the ending of what its .gitignore names


class HubServer(http.server.ThreadingHTTPServer):
    """The hub.

    Attributes:
        repositories: by `owner/name`.
        tokens: what is known of each token's owner.
        faults: the status that a part of the hub answers with (`create`, `commit`, `auth-check`, ...); 0: none at all.
        bodies: all that was sent.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.repositories: dict[str, Repository] = {}
        self.tokens: dict[str, dict] = {}
        self.faults: dict[str, int] = {}
        self.large: dict[str, bytes] = {}
        self.bodies: list[bytes] = []
        self.at_commit = lambda: None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answering(http.server.BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts == ["api", "whoami-v2"]:
            if "whoami" in self.server.faults:
                return self.refuse(self.server.faults["whoami"])
            return self.answer({"name": "me", "orgs": [{"name": "team"}], **self.server.tokens[self.token()]})
        found = self.server.repositories.get("/".join(parts[2:4]))
        if found is None:
            return self.refuse(404, "RepoNotFound")
        if parts[4:] == ["auth-check", "write"]:
            status = self.server.faults.get("auth-check")
            return self.refuse(status) if status else self.answer({})
        siblings = [{"rfilename": name} for name in found.files]
        told = {"id": "/".join(parts[2:4]), "private": found.private, "sha": commit(found), "siblings": siblings}
        return self.answer(told)

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(self.body)
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return getattr(self, f"_{parts[4].replace('-', '_')}")(self.server.repositories["/".join(parts[2:4])])
        return {"create": self._create, "validate-yaml": lambda: self.answer({}), "batch": self._batch}[parts[-1]]()

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(content)
        self.server.large[self.path.rpartition("/")[2]] = content
        self.answer({})

    def do_HEAD(self) -> None:
        self.refuse(404)

    def token(self) -> str:
        return self.headers["Authorization"].removeprefix("Bearer ")

    def _create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization'] or 'me'}/{asked['name']}"
        if "create" in self.server.faults:
            return self.refuse(self.server.faults["create"])
        status = 409 if name in self.server.repositories else 200
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.server.repositories.setdefault(name, Repository(private))
        return self.answer({"url": f"{self.server.address}/{name}"}, status)

    def _preupload(self, repository: Repository) -> None:
        names = [file["path"] for file in json.loads(self.body)["files"]]
        self.answer({"files": [self._mode(repository, name) for name in names]})

    def _mode(self, repository: Repository, name: str) -> dict:
        large, held = name.endswith(LARGE), repository.files.get(name)
        ignored = bool(repository.ignored) and name.endswith(repository.ignored)
        known = {} if held is None else {"oid": sha256(held) if large else blob(held)}
        return {"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": ignored, **known}

    def _batch(self) -> None:
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{self.server.address}/large/{wanted['oid']}"}}}
            for wanted in json.loads(self.body)["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def _commit(self, repository: Repository) -> None:
        self.server.at_commit()
        fault = self.server.faults.get("commit")
        if fault == 0:
            self.close_connection = True
            return self.connection.close()
        if fault:
            return self.refuse(fault)
        header, *lines = [json.loads(line) for line in self.body.splitlines()]
        for line in lines:
            value = line["value"]
            large = line["key"] == "lfsFile"
            found = self.server.large[value["oid"]] if large else base64.b64decode(value["content"])
            repository.files[value["path"]] = found
        repository.commits.append(header["value"]["summary"])
        url = f"{self.server.address}/me/x/commit/{commit(repository)}"
        return self.answer({"commitUrl": url, "commitOid": commit(repository)})

    def _paths_info(self, repository: Repository) -> None:
        if "paths-info" in self.server.faults:
            return self.refuse(self.server.faults["paths-info"])
        names = [name for name in parse_qs(self.body.decode())["paths"] if name in repository.files]
        return self.answer([self._entry(name, repository.files[name]) for name in names])

    def _entry(self, name: str, content: bytes) -> dict:
        entry = {"type": "file", "path": name, "size": len(content), "oid": blob(content)}
        if name.endswith(LARGE):
            entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
        return entry

    def refuse(self, status: int, code: str = "") -> None:
        self.answer({"error": "no"}, status, {"X-Error-Code": code, "X-Error-Message": "you may not"})

    def answer(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        found = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(found)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(found)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output clean."""


def commit(repository: Repository) -> str:
    """A hash of what it holds."""
    return hashlib.sha1(repr(sorted(repository.files.items())).encode()).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob(content: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
