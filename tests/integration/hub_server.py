"""A small model hub for the tests: Hugging Face's API and file serving, on a port of its own, with large files on a
second one as a content network has them.

usage: hub_server.py PORT MODEL_FOLDER LOG_FILE [GGUF_FILE]
Repositories: org/tiny (branch main, tag v1), org/sharded, org/gated, org/private, org/renamed, org/pickle, org/gguf
(without config.json; GGUF_FILE, when given, is its small/model.gguf).
The token "hf_good" may read all, "hf_other" what is neither gated nor private. Faults are switched by
GET /_set?NAME=COUNT: cut (answers of the content network that break off), busy (429), down (503), corrupt (answers of
the content network with a wrong byte), whole (that know no ranges). Every request is a line of the log."""

import hashlib
import json
import pathlib
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, folder, log = int(sys.argv[1]), pathlib.Path(sys.argv[2]), open(sys.argv[3], "a", buffering=1)
names = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
base = {name: (folder / name).read_bytes() for name in names}
base["README.md"] = b"not needed for training\n"
faults = dict.fromkeys(["cut", "busy", "down", "corrupt", "whole"], 0)
lock = threading.Lock()


def shard(content):
    """The weights in two files with an index, as save_pretrained makes them."""
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    header.pop("__metadata__", None)
    tensors, files, weight_map = sorted(header), {}, {}
    for number, part in enumerate([tensors[::2], tensors[1::2]], 1):
        name, own, blob = f"model-0000{number}-of-00002.safetensors", {}, b""
        for tensor in part:
            start, end = header[tensor]["data_offsets"]
            own[tensor] = dict(header[tensor], data_offsets=[len(blob), len(blob) + end - start])
            blob += data[start:end]
            weight_map[tensor] = name
        text = json.dumps(own).encode()
        files[name] = len(text).to_bytes(8, "little") + text + blob
    files["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    return files


def without(*dropped, **added):
    return {**{name: body for name, body in base.items() if name not in dropped}, **added}


older = {**base, "generation_config.json": b'{"temperature": 0.5}\n'}
repositories = {
    "org/tiny": {"main": base, "v1": older},
    "org/sharded": {"main": {**without("model.safetensors"), **shard(base["model.safetensors"])}},
    "org/gated": {"main": base},
    "org/private": {"main": base},
    "org/pickle": {"main": {**without("model.safetensors"), "pytorch_model.bin": b"pickle"}},
    "org/gguf": {"main": {**without("model.safetensors"), "model.Q4_1.gguf": b"GGUF",
                           **({"small/model.gguf": pathlib.Path(sys.argv[4]).read_bytes()} if len(sys.argv) > 4 else {})}},
}
commits = {
    (name, revision): hashlib.sha1(f"{name} {revision}".encode()).hexdigest()
    for name, revisions in repositories.items()
    for revision in revisions
}
large = {}


def git_sha1(body):
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def is_large(name):
    return name.endswith((".safetensors", ".gguf"))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def note(self, what):
        log.write(f"{what} {self.command} {self.path} range={self.headers.get('Range')} "
                  f"authorization={'yes' if self.headers.get('Authorization') else 'no'}\n")

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fault(self, name):
        with lock:
            hit = faults[name] > 0
            faults[name] -= hit
        return hit

    def do_HEAD(self):
        self.do_GET()


class Hub(Handler):
    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        if url.path == "/_set":
            faults.update({key: int(value) for key, value in urllib.parse.parse_qsl(url.query)})
            return self.answer(200)
        self.note("hub")
        if self.fault("busy"):
            return self.answer(429, Retry_After="1")
        if self.fault("down"):
            return self.answer(503)
        parts = url.path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        name, rest = "/".join(parts[:2]), [urllib.parse.unquote(part) for part in parts[2:]]
        if name == "org/renamed":
            return self.answer(307, Location=self.path.replace("org/renamed", "org/tiny"))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in ("", "hf_good", "hf_other"):
            return self.answer(401, X_Error_Message="Invalid credentials in Authorization header")
        if name not in repositories or (name == "org/private" and token != "hf_good"):
            return self.answer(404 if token else 401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        if name == "org/gated" and token != "hf_good" and not api:
            return self.answer(403 if token else 401, X_Error_Code="GatedRepo", X_Error_Message="Access to model org/gated is restricted.")
        revision = rest[1] if len(rest) > 1 else "main"
        found = [(own, files) for own, files in repositories[name].items() if revision in (own, commits[name, own])]
        if not found:
            return self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message=f"Invalid rev id: {revision}")
        commit, files = commits[name, found[0][0]], found[0][1]
        if api:
            return self.describe(rest[:1], name, commit, files)
        self.file("/".join(rest[2:]), commit, files)

    def describe(self, kind, name, commit, files):
        if kind == ["tree"]:
            body = []
            for path, content in files.items():
                entry = {"type": "file", "path": path, "size": len(content), "oid": git_sha1(content)}
                if is_large(path):
                    entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 100}
                body.append(entry)
        else:
            body = {"id": name, "modelId": name, "sha": commit, "private": False, "gated": False, "tags": [], "downloads": 0,
                    "likes": 0, "siblings": [{"rfilename": path} for path in files]}
        self.answer(200, json.dumps(body).encode(), Content_Type="application/json")

    def file(self, path, commit, files):
        if path not in files:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found", X_Repo_Commit=commit)
        body = files[path]
        if not is_large(path):
            return self.answer(200, body, ETag=f'"{git_sha1(body)}"', X_Repo_Commit=commit)
        digest = hashlib.sha256(body).hexdigest()
        large[digest] = body
        self.answer(302, Location=f"http://127.0.0.1:{port + 1}/{digest}?signature=secret", X_Linked_Etag=f'"{digest}"',
                    X_Linked_Size=str(len(body)), X_Repo_Commit=commit)


class Network(Handler):
    def do_GET(self):
        self.note("network")
        body = large[urllib.parse.urlparse(self.path).path.strip("/")]
        etag, total, start, status, extra = f'"{hashlib.md5(body).hexdigest()}"', len(body), 0, 200, {}
        wanted = self.headers.get("Range")
        if wanted and not self.fault("whole") and self.headers.get("If-Range", etag) == etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= total:
                return self.answer(416, Content_Range=f"bytes */{total}")
            status, extra = 206, {"Content_Range": f"bytes {start}-{total - 1}/{total}"}
        part = body[start:]
        if self.fault("corrupt"):
            part = part[:-1] + bytes([part[-1] ^ 1])
        if self.fault("cut"):
            self.answer(status, part[: len(part) // 3], ETag=etag, Content_Length=str(len(part)), **extra)
            self.wfile.flush()
            self.connection.shutdown(2)
            self.close_connection = True
            return
        self.answer(status, part, ETag=etag, Accept_Ranges="bytes", **extra)


threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", port + 1), Network).serve_forever, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", port), Hub).serve_forever()
