"""Requests generated from the API's description, valid and invalid, and checks of the answers.

The values of identifiers are replaced by those of objects that exist, most of the time: else every request would end at
a name that nobody has.
"""

from __future__ import annotations

import copy
import json
import urllib.parse
from typing import TYPE_CHECKING, Any

import hypothesis
import requests
import schemathesis
from docker.transport import UnixHTTPAdapter
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.engines import Engine

TIMEOUT_S = patient(10)
PARTS = ("containers", "exec", "networks", "volumes", "images", "events", "system")
# What would leave this machine, has no end, or would take a daemon's images away.
LEFT_OUT = {
    ("POST", "/images/{name}/push"),
    ("GET", "/images/search"),
    ("POST", "/images/prune"),
    ("DELETE", "/images/{name}"),
    ("POST", "/containers/{id}/attach"),
    ("GET", "/containers/{id}/attach/ws"),
}
BINDING = (
    "Binds",
    "Mounts",
    "Devices",
    "CgroupParent",
    "VolumesFrom",
)  # (of the host: its files are not ours to touch)


class Fuzzer:
    """Sends cases to one engine and judges the answers; ``restore`` makes removed objects again."""

    def __init__(
        self, engine: Engine, description: dict[str, Any], restore: Callable[[], dict[str, list[str]]]
    ) -> None:
        self._session = requests.Session()
        self._session.mount("http+docker://", UnixHTTPAdapter(f"http+unix://{engine.socket}", timeout=TIMEOUT_S))
        self._restore = restore
        self.failures: dict[str, str] = {}
        self.statuses: dict[int, int] = {}
        found = schemathesis.openapi.from_dict(_chosen(description)).get_all_operations()
        everything = [one.ok() for one in found]
        self.operations = [one for one in everything if (one.method.upper(), one.path) not in LEFT_OUT]

    def close(self) -> None:
        self._session.close()

    def drive(self, operation: Any, examples: int, seed: int) -> None:
        """``examples`` right and ``examples`` wrong requests for one operation."""
        pool = self._restore()
        for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:
            try:
                cases = operation.as_strategy(generation_mode=mode)
                self._drive(cases, pool, examples, seed)
            except (hypothesis.errors.Unsatisfiable, hypothesis.errors.InvalidArgument):
                continue  # nothing can be wrong with it

    def _drive(self, cases: Any, pool: dict[str, list[str]], examples: int, seed: int) -> None:
        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=cases, known=st.randoms(use_true_random=False))
        def one(case: Any, known: Any) -> None:
            self._send(_with_known(case, pool, known))
            if case.method.upper() in ("POST", "DELETE"):
                pool.update(self._restore())

        one()

    def _send(self, case: Any) -> None:
        path = "".join(
            urllib.parse.quote(str(case.path_parameters.get(part[1:-1], part)), safe="")
            if part.startswith("{")
            else part
            for part in case.operation.path.replace("/", "\0/\0").split("\0")
        )
        body: Any = None
        if not isinstance(case.body, type(schemathesis.core.NOT_SET)):
            body = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode("utf-8", "surrogatepass")
        headers = {"Content-Type": case.media_type or "application/json"} if body is not None else {}
        what = f"{case.method} {path} {dict(case.query or {})} {body!r}"[:1500]
        try:
            answer = self._session.request(
                case.method,
                f"http+docker://localhost/v1.51{path}",
                params=case.query or None,
                data=body,
                headers=headers,
                timeout=TIMEOUT_S,
                stream=True,
            )
            with answer:
                self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
                self._judge(case, what, answer)
        except (requests.Timeout, requests.ConnectionError) as e:
            self._fail(case, what, f"no answer: {e}")
        except (requests.exceptions.InvalidHeader, UnicodeError):
            return  # the client itself refuses to send it

    def _judge(self, case: Any, what: str, answer: requests.Response) -> None:
        if answer.status_code < 400:
            return
        text = answer.raw.read(1 << 16, decode_content=True)
        of_swarm = answer.status_code == 503 and case.operation.path in ("/volumes/{name}", "/volumes/create")
        known = answer.status_code == 501 or of_swarm or b'"unclassified_argument"' in text
        if answer.status_code >= 500 and not known:
            self._fail(case, what, f"{answer.status_code}: {text[:300]!r}")
        elif case.method.upper() != "HEAD":
            try:
                good = isinstance(json.loads(text)["message"], str)
            except (ValueError, KeyError, TypeError):
                good = False
            if not good or not answer.headers["Content-Type"].startswith("application/json"):
                self._fail(case, what, f"{answer.status_code} is not an error's body: {text[:300]!r}")

    def _fail(self, case: Any, what: str, why: str) -> None:
        self.failures.setdefault(f"{case.method} {case.operation.path}: {why}", what)


def _chosen(description: dict[str, Any]) -> dict[str, Any]:
    chosen = copy.deepcopy(description)
    chosen["paths"] = {p: m for p, m in chosen["paths"].items() if p.split("/")[1] in PARTS}
    chosen["consumes"] = ["application/json"]
    for methods in chosen["paths"].values():
        for operation in methods.values():
            operation.pop("consumes", None)  # (where an archive is wanted it gets JSON: broken archives have a test)
    return chosen


def _with_known(case: Any, pool: dict[str, list[str]], known: Any) -> Any:
    """Put names of things that exist where a name is expected, mostly."""
    kind = case.operation.path.split("/")[1]
    for name in ("id", "name"):
        if name in (case.path_parameters or {}) and known.random() < 0.8:
            case.path_parameters[name] = known.choice(pool[kind])
    query = dict(case.query or {})
    for unbounded in ("follow", "stream"):
        if case.operation.path.endswith(("/logs", "/stats")):
            query[unbounded] = "0"
    if case.operation.path == "/events":
        query["until"] = "1"
    if case.operation.path == "/images/create":
        query.pop("fromImage", None)
    case.query = query
    if isinstance(case.body, dict):
        if case.operation.path == "/containers/create" and known.random() < 0.9:
            case.body["Image"] = "busybox"
            host = case.body.get("HostConfig")
            for name in BINDING if isinstance(host, dict) else ():
                host.pop(name, None)
            if isinstance(host, dict) and known.random() < 0.7:
                host.pop("NetworkMode", None)
        if "Container" in case.body and known.random() < 0.8:
            case.body["Container"] = known.choice(pool["containers"])
    return case
