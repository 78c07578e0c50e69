"""What holds for every test: no user configuration leaks in, and under CI nothing is skipped."""

import asyncio
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.ci_rule import pytest_sessionfinish, pytest_terminal_summary
from tests.support.environment import isolated_environment

__all__ = ["pytest_sessionfinish", "pytest_terminal_summary"]  # pytest finds the rule here


# No test is timed, an example of hypothesis neither: the machines are busy, and each test has a limit.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Scenarios as text can be written anew; see tests/support/datadriven.py."""
    parser.addoption("--rewrite", action="store_true", help="write the output into scenarios that are text")


def pytest_configure() -> None:
    """A synchronous test has no event loop: looptime asks for one, and asyncio would make and leak it."""
    asyncio.set_event_loop(None)


@pytest.fixture(autouse=True, scope="session")
def no_user_configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Git and ssh see an empty home and no system configuration."""
    patch = pytest.MonkeyPatch()
    wanted = isolated_environment(tmp_path_factory.mktemp("home"))
    for name in [name for name in os.environ if name not in wanted]:
        patch.delenv(name)
    for name, value in wanted.items():
        patch.setenv(name, value)
    yield
    patch.undo()
