"""A server that speaks OpenAI's protocol, on this machine, around a tiny model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

SILENCE = 2.5
"""Seconds that a server takes which doesn't answer."""


class Served(ThreadingHTTPServer):
    """Scores the tokens that it is sent as vLLM does; `plan` holds statuses that come first, 0 for an answer
    that never comes.

    `says` is what it gives: log-probabilities of the prompt, of what it wrote alone as llama.cpp's server, or none.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.lock = threading.Lock()
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.plan: list[int] = []
        self.says = "prompt"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def answer(self, ids: list[int]) -> dict[str, Any]:
        with torch.no_grad():
            logits = self.model(torch.tensor([ids])).logits[0].log_softmax(1)
        said = logits[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
        values = {"prompt": [None, *said, -1.0], "written": [-1.0]}.get(self.says)
        return {"choices": [{"text": "", "logprobs": None if values is None else {"token_logprobs": values}}]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        served = self.server
        assert isinstance(served, Served)
        with served.lock:
            served.asked.append(json.loads(body))
            served.headers.append(dict(self.headers))
            status = served.plan.pop(0) if served.plan else 200
            right = self.path == "/v1/completions"
            error = {"error": self.headers["Authorization"]}
            told = served.answer(served.asked[-1]["prompt"]) if right and status == 200 else error
        if status == 0:
            time.sleep(SILENCE)
            self.close_connection = True
            return
        said = json.dumps(told).encode()
        self.send_response(status if right else 404)
        self.send_header("Content-Length", str(len(said)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    with Served(folder) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield served
        served.shutdown()
        thread.join()
