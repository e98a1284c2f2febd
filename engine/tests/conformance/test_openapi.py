"""The server does what `/openapi.json` says: schemathesis sends it what fits the description, and what does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from lastcall.testing.fixtures import Databases
from lastcall.testing.sample import app as sample
from lastcall.testing.server import Server
from lastcall.testing.waiting import free_port

EXAMPLES = 25
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
    ignored_auth,
]


@pytest.fixture(scope="module")
def server(session_databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A node with the sample application."""
    database = session_databases.create((sample,))
    made = Server(
        free_port(),
        tmp_path_factory.mktemp("node"),
        {
            "apps": "lastcall.testing.sample:app",
            "database_url": database.owner_url,
            "slot": database.config.slot,
            "requests_per_minute_max": "1000000",
            "long_poll_wait_max_s": "0.05",
            "statement_timeout_s": "0.5",
        },
    )
    try:
        yield made.start()
    finally:
        made.stop()
        session_databases.drop_all()


@pytest.fixture(scope="module")
def description(server: Server) -> schemathesis.BaseSchema:
    """What the role `service` is told."""
    load_all_checks()
    headers = {"Authorization": f"Bearer {server.token(role='service')}"}
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json", headers=headers)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fits", "does_not_fit"])
def test_the_server_does_what_it_says(
    description: schemathesis.BaseSchema, server: Server, mode: GenerationMode
) -> None:
    """Whatever is sent to each operation, the answer is one that the description has; never a 500."""
    operations = [result.ok() for result in description.get_all_operations()]
    assert len(operations) >= 15
    failures = [failure for operation in operations for failure in broken(operation, server, mode)]
    assert not failures, "\n\n".join(failures)


def broken(operation: APIOperation, server: Server, mode: GenerationMode) -> list[str]:
    """What of this operation is not as described."""
    # A function has rules, and jsonb takes no U+0000: neither can be said in a schema.
    free = not operation.path.startswith("/rpc/") and not operation.path.endswith("/events")
    checks = [*CHECKS, *([positive_data_acceptance] if free else [])]
    headers = {"Authorization": f"Bearer {server.token(role='service')}"}

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def send(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=checks, headers=headers, timeout=10)

    try:
        send()
    except Unsatisfiable:
        # An operation without parameters cannot be sent anything that does not fit.
        return []
    except (FailureGroup, Failure) as failure:
        return [f"{operation.label}: {failure}"]
    return []
