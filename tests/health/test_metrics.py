"""Names, labels and units that dashboards rely on."""

from typing import Any

from stargate_gate.health.metrics import Metrics
from stargate_gate.status import MirrorStatus, StandbyStatus

from .conftest import Source


def samples(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name with labels, as the text format writes them."""
    lines = metrics.render()[0].decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def test_states_are_read_at_each_scrape(metrics: Metrics, source: Source) -> None:
    """The gauges say what the status report says, as of now."""
    found = samples(metrics)
    assert found["stargate_leading"] == found["stargate_ready"] == found["stargate_healthy"] == 1
    assert found["stargate_term"] == 7
    assert found["stargate_sync_set_size"] == 1
    assert found['stargate_build_info{cluster="prod",node="node-a",version="1.2.3"}'] == 1
    source.set(role="standby", ready=False, term=8, mirror=MirrorStatus(True, "node-b"), rescued_refs=2)
    source.checks["git"] = "gone"
    found = samples(metrics)
    assert found["stargate_leading"] == found["stargate_ready"] == found["stargate_healthy"] == 0
    assert found["stargate_term"] == 8
    assert found["stargate_mirror_connected"] == 1
    assert found["stargate_rescued_refs"] == 2


def test_each_standby_has_its_lag(metrics: Metrics, source: Source) -> None:
    """By name; one that was never seen has no lag rather than none."""
    source.set(standbys=(StandbyStatus("node-b", True, 3, 1.5), StandbyStatus("node-c", False)))
    found = samples(metrics)
    assert found['stargate_standby_lag_changes{standby="node-b"}'] == 3
    assert found['stargate_standby_lag_seconds{standby="node-b"}'] == 1.5
    assert found['stargate_standby_in_sync{standby="node-c"}'] == 0
    assert 'stargate_standby_lag_changes{standby="node-c"}' not in found


def test_events_are_counted(metrics: Metrics) -> None:
    """Sessions by command and exit status, refusals by reason, leadership changes."""
    metrics.session_ended("git-receive-pack", 0, 0.2)
    metrics.session_ended("git-receive-pack", 9, 0.01)
    metrics.push_refused("not_leader")
    metrics.leadership_changed()
    found = samples(metrics)
    assert found['stargate_sessions_total{command="git-receive-pack",exit="9"}'] == 1
    assert found['stargate_session_seconds_count{command="git-receive-pack"}'] == 2
    assert found['stargate_pushes_refused_total{reason="not_leader"}'] == 1
    assert found['stargate_pushes_refused_total{reason="not_allowed"}'] == 0
    assert found["stargate_leadership_changes_total"] == 1


def test_clients_cannot_make_new_series(metrics: Metrics) -> None:
    """What they type is no label."""
    before: Any = None
    for index in range(3):
        metrics.session_ended(f"rm -rf {index}", 64, 0.0)
        metrics.push_refused(f"because {index}")
        before = before or set(samples(metrics))
    assert set(samples(metrics)) == before


def test_two_nodes_in_one_process_do_not_share(source: Source) -> None:
    """Each has a registry of its own."""
    first, second = Metrics(source), Metrics(source)
    first.leadership_changed()
    assert samples(second)["stargate_leadership_changes_total"] == 0


def test_openmetrics_is_given_when_asked_for(metrics: Metrics) -> None:
    """Prometheus prefers it."""
    body, content_type = metrics.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
