"""The explorer under hostile requests, and under whatever its own OpenAPI document allows."""

import contextlib
import sys
from unittest import SkipTest

import pytest
import schemathesis
from explored import ALLOWED, small
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import sampled_from
from schemathesis.checks import not_a_server_error

from attacks.http_requests import MOST_GROWTH, serve_and_attack


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_hostile_requests_are_refused_and_the_server_lives(tmp_path):
    """At least 40 hostile requests are each answered with a 4xx without a traceback; after 1,000
    aborted uploads the server answers, and has not grown."""
    found = serve_and_attack(small("wae-mmd", "digits", tmp_path / "run", latent=3).path)
    assert len(found["statuses"]) >= 40
    assert [name for name, code in found["statuses"].items() if not 400 <= code < 500] == []
    assert found["tracebacks"] == []
    assert found["aborted"] == 1000
    assert found["alive"]
    assert found["grown"] < MOST_GROWTH
    print(f"grown by {found['grown']:.1f} MiB to {found['resident']:.0f} MiB")


@pytest.fixture(scope="session")
def openapi(address):
    return schemathesis.openapi.from_url(f"{address}/api/openapi.json", headers=ALLOWED)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_whatever_the_document_allows_is_no_server_error(openapi, explorers, mode):
    """Requests made from the OpenAPI document, valid ones and others, meet no 5xx; some of the
    valid ones are answered."""
    asked: set[str] = set()
    answered: set[str] = set()
    for found in openapi.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy(generation_mode=mode), run=sampled_from([*explorers]))
        @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
        def ask(case, run):
            if "run" in case.path_parameters:
                case.path_parameters["run"] = run
            asked.add(case.operation.label)
            reply = case.call_and_validate(
                headers=ALLOWED, checks=(not_a_server_error,), timeout=60
            )
            if reply.status_code == 200:
                answered.add(case.operation.label)

        # not every operation can be asked for wrongly
        with contextlib.suppress(Unsatisfiable, SkipTest):
            ask()
    assert len(asked) >= 12
    assert len(answered) >= (8 if mode is schemathesis.GenerationMode.POSITIVE else 0)


def test_the_document_tells_every_operation(openapi):
    """Every operation of the API is in the document, with its typed refusals."""
    paths = openapi.raw_schema["paths"]
    operations = [one for path in paths.values() for one in path.values()]
    assert len(operations) == 15
    for one in operations:
        assert {"200", "404", "413", "422", "503"} <= set(one["responses"])
        refusal = one["responses"]["422"]["content"]["application/json"]["schema"]
        assert refusal == {"$ref": "#/components/schemas/Problem"}
