"""Web servers on loopback: one that answers everything alike, and a stand-in for the Hugging Face Hub.

The Hub itself cannot be run: this is what its own client asks for when it uploads small files. Large files go another
way there (LFS, Xet), which is not covered.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.serving import make_server

TOKEN = "hf_a-token-that-may-write"


@contextlib.contextmanager
def serving(app: Flask) -> Iterator[str]:
    """Serve an application in a thread; its address."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


def answering(status: int) -> Flask:
    """Answer whatever is asked for with one status."""
    app = Flask("answering")

    @app.route("/", defaults={"path": ""}, methods=["GET", "HEAD", "PUT", "POST"])
    @app.route("/<path:path>", methods=["GET", "HEAD", "PUT", "POST"])
    def answer(path: str) -> Response:
        return Response(status=status, headers={"X-Asked": path})

    return app


def hub(repository: str, files: dict[str, bytes]) -> Flask:
    """One model repository that TOKEN may write to, with the files in it."""
    app = Flask("hub")
    api = f"/api/models/{repository}"

    @app.before_request
    def only_for_those_who_may() -> Response | None:
        if request.path.startswith("/api/") and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return Response("{}", status=401, headers={"X-Error-Message": "Invalid credentials"})
        return None

    @app.get(api)
    @app.get(f"{api}/revision/main")
    def info() -> Any:
        return jsonify(id=repository, sha="0" * 40, siblings=[], private=False, tags=[])

    @app.get(f"{api}/auth-check/write")
    def may_write() -> Any:
        return "{}"

    @app.post(f"{api}/preupload/main")
    def preupload() -> Any:
        asked = request.get_json()["files"]
        return jsonify(files=[{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked])

    @app.post(f"{api}/commit/main")
    def commit() -> Any:
        for line in request.get_data().splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
        return jsonify(commitUrl=f"{request.host_url}{repository}/commit/{'1' * 40}", commitOid="1" * 40, success=True)

    @app.post(f"{api}/paths-info/main")
    def paths_info() -> Any:
        named = request.form.getlist("paths") or (request.get_json(silent=True) or {}).get("paths", [])
        found = [path for path in named if path in files]
        return jsonify([{"type": "file", "path": path, "size": len(files[path]), "oid": "2" * 40} for path in found])

    @app.get(f"{api}/tree/main/<path:folder>")
    @app.get(f"{api}/tree/main")
    def tree(folder: str = "") -> Any:
        inside = [path for path in files if path.startswith(f"{folder}/" if folder else "")]
        return jsonify([{"type": "file", "path": path, "size": len(files[path]), "oid": "2" * 40} for path in inside])

    @app.get(f"/{repository}/resolve/main/<path:name>")
    def resolve(name: str) -> Any:
        return Response(files[name]) if name in files else Response(status=404)

    return app
