"""Under CI a skipped test makes the run fail; a conftest.py imports these two hooks."""

import os

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was skipped when that makes the run fail."""
    if os.environ.get("STARGATE_CI") and terminalreporter.stats.get("skipped"):
        terminalreporter.section("skipped tests fail under CI")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skipped test hides a missing part: under CI that is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("STARGATE_CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
