"""Every attack in its short form; `make attack` has the long one."""

from pathlib import Path

import pytest

from tests.attacks.ground import attacked_cluster
from tests.attacks.scenarios import SCENARIOS

LIMIT_S = 300  # on a machine that is slow or busy


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_cluster_stands(tmp_path: Path, name: str) -> None:
    """No node ends, a good push gets through, memory stays bounded, and what the attack's file asks for."""
    with attacked_cluster(tmp_path / "cluster", short=True, say=print) as ground:
        SCENARIOS[name](ground)
