"""The failover plan: ten times in a row with stop, ten times with kill, each both ways."""

import pytest

from integration.failover_plan import TREE, WRITER, FailoverPlan
from integration.harness import Plan, Session

ROUNDS = 10


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_the_failover_plan_ten_times_in_a_row(session: Session, how: str) -> None:
    """Every step of the plan, every round; what was acknowledged is there at the end of each."""
    with session.cluster(Plan(floating=True)) as cluster:
        plan = FailoverPlan(cluster)
        plan.prepare()
        for _ in range(ROUNDS):
            plan.round(how)
        assert plan.lost() == set()
        leader, standby = cluster.settle()
        for tree in (TREE, WRITER):
            assert leader.refs(tree) == standby.refs(tree)
