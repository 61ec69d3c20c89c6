"""A small Kubernetes API on loopback: it checks and keeps what is applied, and tells a story of how it gets ready."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import yaml

READY = {
    "url": "http://segraft.segraft.example.org",
    "conditions": [{"type": kind, "status": str(kind != "Stopped")} for kind in ("PredictorReady", "Ready", "Stopped")],
    "modelStatus": {"transitionStatus": "UpToDate", "states": {"targetModelState": "Loaded"}},
}


def condition(kind, status, message=""):
    return {"type": kind, "status": status, "message": message, "reason": "Because"}


class Api(BaseHTTPRequestHandler):
    """Server-side apply, objects and pods.

    The server's `story` is a list of (status, pods); each look at it goes one on, and the last one stays. Fields in
    `owned`, as (dotted path, value, manager), are someone else's.
    """

    def do_PATCH(self):
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        body = yaml.safe_load(self.rfile.read(int(self.headers["Content-Length"])))
        *_, namespace, plural, name = path.split("/")
        self.server.asked.append({"path": path, "query": query, "body": body, "token": self.headers["Authorization"]})
        if self.server.answer:
            self.reply(*self.server.answer)
        elif plural not in self.server.kinds:
            self.reply(404, "404 page not found")
        elif self.headers["Content-Type"] != "application/apply-patch+yaml" or "fieldManager" not in query:
            self.refuse(415, "UnsupportedMediaType", "not a server-side apply")
        elif (body["metadata"]["namespace"], body["metadata"]["name"]) != (namespace, name):
            self.refuse(400, "BadRequest", "the namespace of the provided object does not match")
        elif plural in self.server.forbidden:
            self.refuse(403, "Forbidden", f'{plural}.serving.kserve.io "{name}" is forbidden', name)
        elif (conflict := self.conflict(body)) and query["force"] != ["true"]:
            self.refuse(409, "Conflict", f"Apply failed with 1 conflict: {conflict}", name)
        else:
            before = self.server.objects.get(path)
            self.server.objects[path] = body
            self.reply(200 if before else 201, body)

    def do_GET(self):
        path = urlsplit(self.path).path
        story = self.server.story
        if path.endswith("/pods"):
            assert "labelSelector=serving.kserve.io" in self.path
            pods = story[0][1]
            if len(story) > 1:
                story.pop(0)
            self.reply(200, {"kind": "PodList", "items": pods})
        elif path in self.server.objects:
            self.reply(200, self.server.objects[path] | {"status": story[0][0]})
        else:
            self.refuse(404, "NotFound", f"{path} not found", path)

    def conflict(self, body):
        for dotted, value, manager in self.server.owned:
            found = body
            for key in dotted.split("."):
                found = found.get(key, {})
            if found != value:
                return f'conflict with "{manager}": .{dotted}'
        return None

    def refuse(self, code, reason, message, name=""):
        status = {"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": code}
        self.reply(code, status | ({"details": {"name": name}} if name else {}))

    def reply(self, code, content):
        text = content if isinstance(content, str) else json.dumps(content)
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def start():
    """A server that runs, with nothing in it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.asked, server.objects, server.owned, server.forbidden = [], {}, [], set()
    server.answer = None  # (code, text) in place of the API's own
    server.kinds, server.story = {"inferenceservices", "servingruntimes"}, [(READY, [])]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def kubeconfig(server, folder):
    """A kubeconfig that leads there."""
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    user = {"name": "u", "user": {"token": "secret"}}
    content = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "x"}
    (folder / "kubeconfig").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **content}))
    return folder / "kubeconfig"
