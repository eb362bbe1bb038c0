"""Deployment bodies that nobody in his senses sends: every one is answered, none with a 500, none after a long time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, example, given, settings

from orchestrator.service.settings import Settings
from tests.contract.arm_client import Arm, arm_server
from tests.contract.deploying import S, body, gallery, identity, make_group, nested, path, template
from tests.contract.deployment_bodies import BODIES, BROKEN

EXAMPLES = int(os.environ.get("AIB_FUZZ_EXAMPLES", "0"))
"""`make fuzz` asks for more examples, other ones each time."""
ANSWERED = {200, 201, 400, 404, 409, 413, 429}
FUZZ = settings(
    max_examples=EXAMPLES or 40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=not EXAMPLES,
    database=None,
)
LOOP = "[concat('{0}', copyIndex())]"


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arm]:
    with arm_server(Settings(tmp_path_factory.mktemp("home"), scripted=True)) as server:
        make_group(server)
        yield server


def answered(arm: Arm, data: bytes, verb: str = "validate") -> requests.Response:
    """The answer, which comes within the client's patience and is no 500."""
    answer = arm.post(f"{path('fuzz')}/{verb}", data) if verb else arm.put(path("fuzz"), data)
    assert answer.status_code in ANSWERED, (answer.status_code, answer.text[:500], data[:2000])
    faults = [each.read_text() for each in (arm.context.store.home / "service").glob("faults/*")]
    assert not faults, faults[0]
    return answer


@FUZZ
@given(BODIES)
@example({"properties": {"template": template(outputs={"o": {"type": "string", "value": 5}}), "mode": "Complete"}})
def test_any_body_is_answered(arm: Arm, whole: Any) -> None:
    whole["properties"].setdefault("mode", "Incremental")
    data = json.dumps(whole).encode()
    verdict = answered(arm, data)
    assert (answered(arm, data, "whatIf").status_code == 200) == (verdict.status_code == 200)
    started = answered(arm, data, "")
    assert (started.status_code in (200, 201)) == (verdict.status_code == 200), (started.text, verdict.text)
    if started.status_code in (200, 201):
        done = arm.finished(started)
        assert done["status"] in ("Succeeded", "Failed")
        assert "InternalServerError" not in json.dumps(done)
        assert arm.get(f"{path('fuzz')}/operations").status_code == 200


@FUZZ
@given(BROKEN)
def test_any_text_is_answered(arm: Arm, data: bytes) -> None:
    answered(arm, data)


def loop(letter: str, count: int = 800, **more: Any) -> dict[str, Any]:
    """A gallery made `count` times."""
    return gallery(LOOP.format(letter), copy={"name": letter, "count": count}, **more)


def loops_in_loops(levels: int) -> Any:
    """800 to the power of `levels` values."""
    value: Any = "x"
    for number in range(levels):
        value = {"copy": [{"name": f"l{number}", "count": 800, "input": value}]}
    return value


def laughs() -> dict[str, str]:
    """Variables of which each is fifty times the one before."""
    calls = {n: ", ".join([f"variables('v{n - 1}')"] * 50) for n in range(1, 10)}
    return {"v0": "haha"} | {f"v{n}": f"[concat({call})]" for n, call in calls.items()}


def shouts() -> dict[str, str]:
    """Ever longer strings, made large and small again and again."""
    made = {"v0": "[padLeft('a', 10000, 'x')]"}
    for n in range(1, 7):
        call = f"concat(variables('v{n - 1}'), variables('v{n - 1}'))"
        for _ in range(20):
            call = f"toLower(toUpper({call}))"
        made[f"v{n}"] = f"[{call}]"
    return made


def deep(levels: int) -> dict[str, Any]:
    made = template(gallery("g"))
    for number in range(levels):
        made = template(nested(f"n{number}", made))
    return made


def nested_loops() -> dict[str, Any]:
    """800 deployments of 800 deployments."""
    inside = template(nested(LOOP.format("m"), template(), copy={"name": "d", "count": 800}))
    return template(nested(LOOP.format("n"), inside, copy={"name": "c", "count": 800}))


def waiting_for_loops() -> dict[str, Any]:
    """Each of 800 waits for loops of 200 three hundred times."""
    first = loop("a", 200)
    return template(first, *(loop(letter, 200, dependsOn=["a"] * 300) for letter in "bcd"))


UNION = "[concat('g', copyIndex(), string(length(union(variables('a'), variables('a')))))]"
OUTPUT = {"o": {"type": "array", "value": "[variables('v')]"}}
HOSTILE = {
    "laughs": template(gallery("[variables('v9')]"), variables=laughs()),
    "shouts": template(gallery("[length(variables('v6'))]"), variables=shouts()),
    "loops in loops": template(gallery("g", properties=loops_in_loops(4))),
    "loops in variables": template(variables={"v": loops_in_loops(4)}, outputs=OUTPUT),
    "loops of resources": template(*(loop(f"g{n}x") for n in range(50))),
    "no turns": template(*({"type": "A.B/c", "copy": {"name": "c", "count": 0}} for _ in range(10_000))),
    "nested loops": nested_loops(),
    "deep nesting": deep(25),
    "waiting for loops": waiting_for_loops(),
    "ranges": template(
        variables={"v": "[map(range(0, 10000), lambda('i', range(0, 10000)))]"},
        outputs=OUTPUT,
    ),
    "unions": template(
        gallery(UNION, copy={"name": "c", "count": 800}),
        variables={"a": "[range(0, 1900)]"},
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_are_refused(arm: Arm, name: str) -> None:
    assert answered(arm, json.dumps(body(HOSTILE[name])).encode()).status_code == 400


def test_a_template_reads_no_file_of_this_machine(arm: Arm) -> None:
    for address in ("/../../etc/passwd", "file:///etc/passwd", "/subscriptions/../../../../etc/passwd"):
        what = template(gallery("g", tags={"a": f"[reference('{address}')]"}))
        done = arm.finished(answered(arm, json.dumps(body(what)).encode(), ""))
        assert done["status"] == "Failed" and "root:" not in json.dumps(done)


def test_all_on_all(arm: Arm) -> None:
    """Eighty thousand dependencies are no crime."""
    what = template(*(gallery(f"g{n}", dependsOn=[f"g{m}" for m in range(n)]) for n in range(400)))
    assert answered(arm, json.dumps(body(what)).encode()).status_code == 200


@pytest.mark.parametrize(
    "data",
    [
        b'{"properties": ' + b"[" * 100_000,
        b'{"properties": {"template": ' + b'{"a":' * 50_000,
        b"[" + b"1," * 1_000_000 + b"1]",
        b'{"properties":{"mode":"Incremental","template":{"resources":[' + b"{}," * 300_000 + b"{}]}}}",
        b"/*" * 1_000_000,
        b"//" * 2_000_000,
    ],
    ids=["brackets", "objects", "numbers", "resources", "comments", "line"],
)
def test_hostile_texts_are_refused(arm: Arm, data: bytes) -> None:
    assert answered(arm, data).status_code == 400


def test_many_deployments_wait_their_turn_or_are_told_to_come_back(arm: Arm) -> None:
    """More than are carried at once: some are refused, and all that were accepted come to their end."""
    what = body(template(*(identity(f"many{n}") for n in range(20))))
    started = [arm.put(path(f"many{n}"), what) for n in range(60)]
    assert {answer.status_code for answer in started} <= {201, 429}
    for answer in started:
        if answer.status_code == 201:
            assert arm.finished(answer)["status"] == "Succeeded"
        else:
            assert answer.headers["Retry-After"]
    assert arm.get(f"{S}/resourceGroups/rg/providers/Microsoft.Resources/deployments").status_code == 200
