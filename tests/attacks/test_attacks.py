"""Every attack in its short form; `make attack` has the long one."""

from pathlib import Path

import pytest

from tests.attacks.scenarios import SCENARIOS
from tests.attacks.target import attacked_cluster

LIMIT_S = 300  # on a machine that is slow or busy


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_cluster_stands(tmp_path: Path, name: str) -> None:
    """No node ends, a push succeeds, memory stays bounded, and what the attack's file checks besides."""
    with attacked_cluster(tmp_path / "cluster", short=True, say=print) as target:
        SCENARIOS[name](target)
