"""Fixtures: one session for the run, a fresh cluster for a test; logs of all nodes when a test fails."""

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from integration import results
from integration.harness import Cluster, Session
from tests.support import ci_rule
from tests.support.ci_rule import pytest_sessionfinish

__all__ = ["pytest_sessionfinish"]  # pytest finds the rule here
pytest.register_assert_rewrite("integration.scenario", "integration.failover_plan")

TEST_LIMIT_S = 600  # a cluster is started, broken and mended in seconds; a machine may be six times slower


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Scenarios take longer than the tests of one process."""
    for item in items:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TEST_LIMIT_S))


def _interrupt(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(f"signal {number}")


@pytest.fixture(scope="session")
def session() -> Iterator[Session]:
    """The run's session: `with session.cluster(Plan(...)) as cluster:` for a special one."""
    signal.signal(signal.SIGTERM, _interrupt)
    with Session() as made:
        yield made


@pytest.fixture
def cluster(session: Session) -> Iterator[Cluster]:
    """A fresh ordinary pair, in step, with a client; node-a leads and `stargate.local` points to it."""
    with session.cluster() as made:
        yield made


@pytest.fixture(scope="module")
def pair(session: Session) -> Iterator[Cluster]:
    """One ordinary pair for all tests of a file; each leaves it working."""
    with session.cluster() as made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test tells what the machines said."""
    report = yield
    session = getattr(item, "funcargs", {}).get("session")
    if report.failed and session is not None:
        for cluster in session.clusters:
            report.sections.append((f"machines of {cluster.name}", cluster.report()))
    return report


def pytest_configure() -> None:
    """The run has a name before there are workers."""
    results.file_of_run()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of what was measured, and the rule about skipped tests."""
    ci_rule.pytest_terminal_summary(terminalreporter)
    if hasattr(config, "workerinput"):
        return  # a worker's words go nowhere
    made = results.written(results.file_of_run())
    if made is not None:
        file, text = made
        terminalreporter.section(f"failover, as measured ({file})")
        terminalreporter.write(text)
