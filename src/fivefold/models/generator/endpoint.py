"""A server that speaks OpenAI's protocol: asked for the log-probabilities of tokens that it is given, nothing twice."""

from __future__ import annotations

import http.client
import json
import logging
import math
import os
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from fivefold.errors import FivefoldError, RecipeError, RunError
from fivefold.models.generator.kept import Kept, Key, key_of
from fivefold.task import FloatArray

log = logging.getLogger("fivefold")

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before a request is sent again, doubled each time up to the second."""

BUSY = 429
"""What a server answers that wants to be asked later; from 500 on something is wrong with it."""

AT_ONCE = 256
"""Answers after which those that came are kept, so that a run that stops asks little twice."""

_said: set[str] = set()


@dataclass(frozen=True)
class Endpoint:
    """Where a model is asked; the parameters are keys of the recipe's section `model.endpoint`."""

    url: str
    model: str
    api_key_env: str | None
    concurrency: int
    retries: int
    timeout: float
    price: float | None

    @property
    def host(self) -> str:
        """What gets the records."""
        return urlsplit(self.url).netloc

    def key(self) -> str | None:
        """The API key, from the environment alone.

        Raises
        ------
        RecipeError
            If the variable isn't set.
        """
        if self.api_key_env is None:
            return None
        if not (key := os.environ.get(self.api_key_env)):
            raise RecipeError(
                f"model.endpoint.api_key_env names the variable {self.api_key_env}, which isn't set.",
                next_step=f"export {self.api_key_env}=… in the shell that runs the command",
            )
        return key

    def say(self) -> None:
        """Tell once where records go."""
        if self.host not in _said:
            _said.add(self.host)
            log.warning("  The texts of records are sent to %s (model.endpoint).", self.host)


@dataclass(frozen=True)
class Tail:
    """Tokens whose log-probabilities are wanted from the position `first` on."""

    ids: tuple[int, ...]
    first: int


class Client:
    """Asks an endpoint, several requests at a time, and keeps what it said."""

    def __init__(self, endpoint: Endpoint, kept: Kept) -> None:
        self.endpoint, self.kept = endpoint, kept
        self._local = threading.local()
        self._stopped = threading.Event()
        self._failed: FivefoldError | None = None

    def log_probabilities(self, asked: Sequence[Tail]) -> list[FloatArray]:
        """Of each sequence the log-probabilities of its tokens from `first` on, float32 (len(ids) - first,).

        Raises
        ------
        RunError
            If the server can't be had, doesn't answer after all retries, or gives no log-probabilities.
        """
        keys = [key_of(self.endpoint.model, each.ids, each.first) for each in asked]
        found = self.kept.find(keys)
        left = {key: each for key, each in zip(keys, asked, strict=True) if key not in found}
        wanted = list(left.items())
        for start in range(0, len(wanted), AT_ONCE):
            new: dict[Key, FloatArray] = {}
            try:
                new.update(self._answers(wanted[start : start + AT_ONCE]))
            finally:
                self.kept.keep(new)
            found |= new
        return [found[key] for key in keys]

    def _answers(self, wanted: Sequence[tuple[Key, Tail]]) -> Iterator[tuple[Key, FloatArray]]:
        self.endpoint.say()
        self._failed = None
        self._stopped.clear()
        with ThreadPoolExecutor(self.endpoint.concurrency) as threads:
            try:
                yield from zip(
                    [key for key, _ in wanted], threads.map(self._ask, [each for _, each in wanted]), strict=True
                )
            finally:
                self._stopped.set()
                threads.shutdown(cancel_futures=True)

    def _ask(self, asked: Tail) -> FloatArray:
        """One answer; once a request has failed for good, no other one is sent."""
        if self._failed is not None:
            raise self._failed
        try:
            return self._patiently(asked)
        except FivefoldError as error:
            self._failed = error
            self._stopped.set()
            raise

    def _patiently(self, asked: Tail) -> FloatArray:
        """One request, sent again while the server is busy or in trouble."""
        trouble = ""
        for attempt in range(self.endpoint.retries + 1):
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * random.uniform(0.5, 1)
            try:
                status, told, answer = self._post(asked.ids)
            except (OSError, http.client.HTTPException) as error:
                self._hang_up()
                trouble = f"{type(error).__name__}: {error}"
            else:
                if status == http.client.OK:
                    return self._read(answer, asked)
                trouble = f"HTTP {status}: {self._told(answer)}"
                if status != BUSY and status < http.client.INTERNAL_SERVER_ERROR:
                    raise self._refused(trouble, "mend model.endpoint: url, model or api_key_env")
                if told is not None and told.isdecimal():
                    wait = min(LONGEST_WAIT, float(told))
            if attempt < self.endpoint.retries and self._stopped.wait(wait):
                break
        times = self.endpoint.retries + 1
        raise self._refused(trouble, f"see to the server; it was asked {times} times (model.endpoint.retries)")

    def _refused(self, got: str, next_step: str) -> RunError:
        return RunError(
            f"The endpoint at {self.endpoint.host} doesn't answer as it should.",
            got=got,
            next_step=f"{next_step}; what it said so far is kept, and the same command goes on there",
        )

    def _told(self, answer: bytes) -> str:
        """The beginning of an answer, in which some servers repeat the key."""
        key, text = self.endpoint.key(), answer.decode("utf-8", "replace")
        return (text if key is None else text.replace(key, "(the API key)"))[:200]

    def _post(self, ids: Sequence[int]) -> tuple[int, str | None, bytes]:
        """Status, when to come back, and the answer to one request; its own connection for each thread."""
        parts = urlsplit(self.endpoint.url)
        if getattr(self._local, "line", None) is None:
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            self._local.line = kind(parts.netloc, timeout=self.endpoint.timeout)
        asked = {"model": self.endpoint.model, "prompt": list(ids), "max_tokens": 1, "temperature": 0}
        headers, key = {"Content-Type": "application/json"}, self.endpoint.key()
        headers |= {} if key is None else {"Authorization": f"Bearer {key}"}
        body = json.dumps(asked | {"echo": True, "logprobs": 1})
        self._local.line.request("POST", parts.path.rstrip("/") + "/completions", body, headers)
        response = self._local.line.getresponse()
        return response.status, response.getheader("Retry-After"), response.read()

    def _hang_up(self) -> None:
        with suppress(OSError):
            self._local.line.close()
        self._local.line = None

    def _read(self, answer: bytes, asked: Tail) -> FloatArray:
        """The log-probabilities in an answer that repeats what was asked."""
        try:
            said: Any = json.loads(answer)["choices"][0]["logprobs"]["token_logprobs"]
            wanted = [float(value) for value in said[asked.first : len(asked.ids)]]
        except (ValueError, KeyError, IndexError, TypeError):
            wanted = []
        if len(wanted) != len(asked.ids) - asked.first or any(map(math.isnan, wanted)):
            raise RunError(
                f"The endpoint at {self.endpoint.host} gives no log-probabilities of the tokens that it is sent.",
                allowed="a server whose /completions takes token ids with echo and logprobs, such as vLLM's",
                got=self._told(answer),
                next_step="serve the model by vLLM, or name it in model.backbone",
            )
        return np.array(wanted, dtype=np.float32)
