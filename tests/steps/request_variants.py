"""Requests for management routes of a server in generated spellings of path and headers."""

from __future__ import annotations

import json
import random
import re
import socket
import string
from collections.abc import Callable

from steps.serving.allowlist import ALLOWED

NUM_VARIANTS = 500
# Routes of transformers, of vLLM, and of FastAPI, none of which is for clients.
MANAGEMENT = (
    *("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/adapters/tuned", "/reset", "/load_model"),
    *("/v1/responses", "/v1/audio/transcriptions", "/docs", "/openapi.json", "/redoc", "/tokenize", "/invocations"),
    *("/sleep", "/wake_up", "/collective_rpc", "/reset_prefix_cache", "/server_info", "/start_profile", "/scale"),
)
METHODS = (*["POST"] * 12, "PUT", "PATCH", "DELETE", "GET", "HEAD", "OPTIONS", "TRACE", "post", "CONNECT")
ROOT_PATHS = ("", "/api", "/v1")
"""Root paths of a server behind a proxy."""
Transform = Callable[[str, random.Random], str]
PATHS: tuple[Transform, ...] = (
    lambda path, _: path,
    lambda path, r: path + r.choice(["%0a", "%0d%0a", "%00", "%20", "%09", "%0b", "%c2%85", "%e2%80%a8"]),
    lambda path, r: path + r.choice(["/", "//", "/.", "/..", "/%2e", ";a=b", "%3b", "%23", "%3f", "?a=b", "?%0a"]),
    lambda path, r: r.choice(["/", "/.", "/x/..", "/%2e", "/chat/..", "/health/..", "%2f", "/%2f", "//"]) + path,
    lambda path, r: r.choice(ROOT_PATHS[1:]) * r.randint(1, 2) + path,
    lambda path, r: r.choice(list(ALLOWED)) + r.choice(["", "%0a", "?", "%3f", ";", "/.."]) + path,
    lambda path, _: path[0] + path[1:].replace("/", "%2f"),
    lambda path, _: path[0] + path[1:].replace("/", "%252F"),
    lambda path, _: path[0] + path[1:].replace("/", r"\\"[0]),
    lambda path, r: path.replace("/", "/" * r.randint(2, 4)),
    lambda path, r: re.sub("[a-z]", lambda m: m[0].upper() if r.random() < 0.5 else m[0], path),
    lambda path, r: re.sub("[a-z_]", lambda m: f"%{ord(m[0]):02x}" if r.random() < 0.5 else m[0], path),
    lambda path, r: r.choice(["http://127.0.0.1", "https://example.com:443", "http://u:p@h", "file://"]) + path,
)
HEADERS = (
    *("X-HTTP-Method-Override: POST", "X-Original-URL: {}", "X-Rewrite-URL: {}", "X-Forwarded-Prefix: {}"),
    *("X-Forwarded-Path: {}", "X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "Host: localhost"),
    *("Authorization: Bearer x", "Content-Type: text/plain", "Connection: Upgrade\r\nUpgrade: websocket"),
)


def variants(seed: int, num: int) -> list[bytes]:
    """Requests for a management route, each in another spelling."""
    r = random.Random(seed)
    requests_: dict[bytes, None] = {}
    while len(requests_) < num:
        target = path = r.choice(r.choice([MANAGEMENT, MANAGEMENT[:6]]))
        for transform in r.choices(PATHS, k=r.choice([1, 1, 2, 3])):
            path = transform(path, r)
        body = json.dumps({"lora_name": "evil", "lora_path": "/nowhere", "padding": r.choice(string.ascii_letters)})
        lines = [f"{r.choice(METHODS)} {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
        lines += [header.replace("{}", target) for header in r.sample(HEADERS, r.randint(0, 2))]
        lines += [f"Content-Length: {len(body)}", "Connection: close"]
        requests_["\r\n".join([*lines, "", body]).encode()] = None
    return list(requests_)


def send(port: int, request: bytes) -> int:
    """Send raw bytes and return the status of the response; 0 if the server only closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.sendall(request)
        head = connection.recv(4096)
    return int(head.split()[1]) if head else 0
