"""The failover test plan, step by step, each with its time.

1. The address points to the leader, and `git kv set` through `stargate.local` succeeds.
   While it is stable: a push straight at the standby is refused.
2. The leader's service is stopped (or killed).
3. The standby takes the leader lock.
4. The address moves.
5. The next `git kv set` through the same name succeeds.
"""

import json
import time

from integration.harness import NAME, Cluster, Done, Node, Pusher, eventually, longest_gap_s
from integration.harness.client import HOME
from integration.harness.node import SSH_PORT
from integration.results import Result, note

TREE = "settings"
WRITER = "writer"  # another repository, for a loop of writes that no other write gets in the way of
REFUSED_AT_ONCE = "1s"  # `git kv` tries again for so long before it gives up
PARAMIKO = """
import paramiko, sys
client = paramiko.SSHClient()
client.load_host_keys("/home/dev/.ssh/known_hosts_paramiko")
client.connect(sys.argv[1], int(sys.argv[2]), "git", key_filename="/home/dev/.ssh/id_ed25519", timeout=30,
               allow_agent=False, look_for_keys=False)
_, out, err = client.exec_command(f"git-receive-pack '{sys.argv[3]}'", timeout=30)
print(err.read().decode())
sys.exit(out.channel.recv_exit_status())
"""


class FailoverPlan:
    """The plan on one cluster with a floating address. Rounds go back and forth between the nodes."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.client = cluster.client
        self._began_s = time.monotonic()
        self._number = 0
        self._acknowledged: dict[str, set[str]] = {TREE: set(), WRITER: set()}

    def prepare(self) -> None:
        """Two repositories; from one of them remotes lead straight to the nodes."""
        for tree in (TREE, WRITER):
            self.client.work_tree(tree)
            self.client.push(tree)
        for node in self.cluster.nodes:
            self.client.git("remote", "add", node.name, self.client.url(TREE, node), cwd=TREE)

    def round(self, how: str) -> None:
        """All five steps, with the node that leads now; `how`: `stop` or `kill`. Both run afterwards."""
        self._number += 1
        self._say(f"round {self._number}, {how}")
        leader, standby = self.cluster.settle()
        self.step_1_write_through_the_address(leader)
        self.stable_refusals_at_the_standby(leader, standby)
        pusher = self.client.start_pusher(WRITER, "kv")
        pusher.wait_accepted()
        term = leader.status()["term"]
        since_s = self.step_2_stop_the_leader(leader, how)
        self.step_3_the_standby_takes_the_lock(standby, term, since_s)
        self.step_4_the_address_moves(leader, standby, since_s)
        self.step_5_write_through_the_address(since_s)
        self._measure(pusher, how, since_s)
        leader.start()
        standby.wait_sync_set(leader.name)

    def step_1_write_through_the_address(self, leader: Node) -> None:
        """The address points to the leader, and a write through it succeeds."""
        assert self._who_answers() == leader.name
        self._set(f"before-{self._number}")
        self._say(f"1. {NAME} is {leader.name}; git kv set: ok")

    def stable_refusals_at_the_standby(self, leader: Node, standby: Node) -> None:
        """Straight at the standby: 9 for git kv, ssh and paramiko; "not leader" for each, and for git."""
        words = f"not leader: {standby.name} is a standby; the leader is {leader.name}"
        kv = ("kv", "--timeout", REFUSED_AT_ONCE, "--remote", standby.name, "set", "never", "x")
        by_kv = self.client.git(*kv, cwd=TREE, ok=False)
        by_ssh = self.client.ssh("git-receive-pack", f"'{TREE}'", where=standby, ok=False)
        by_paramiko = self._paramiko(standby)
        by_git = self.client.push(TREE, standby, ok=False)
        assert [by_kv.status, by_ssh.status, by_paramiko.status, by_git.status] == [9, 9, 9, 128]
        assert all(words in done.text for done in (by_kv, by_ssh, by_paramiko, by_git))
        self._say(
            f"   straight at {standby.name}: git kv 9, ssh 9, paramiko 9, git 128; each says 'not leader'"
        )

    def step_2_stop_the_leader(self, leader: Node, how: str) -> float:
        """SIGTERM and its time to hand over, or SIGKILL; when it began."""
        since_s = time.monotonic()
        if how == "kill":
            leader.kill()
        else:
            assert leader.stop() == 0
        self._say(f"2. {how} {leader.name}: gone", since_s)
        return since_s

    def step_3_the_standby_takes_the_lock(self, standby: Node, term: int, since_s: float) -> None:
        """It leads, in a larger term."""
        standby.wait_ready()
        status = standby.status()
        assert (status["role"], status["leader"]) == ("leader", standby.name)
        assert status["term"] > term
        self._say(f"3. {standby.name} has the leader lock, term {status['term']}", since_s)

    def step_4_the_address_moves(self, leader: Node, standby: Node, since_s: float) -> None:
        """It is the new leader's, and who asks for the name reaches it."""
        eventually(lambda: self._who_answers() == standby.name, f"{NAME} is {standby.name}")
        shown = standby.run("ip", "-brief", "address", user="root").out
        assert f"{self.cluster.floating_address}/" in shown
        assert not leader.running
        self._say(f"4. {NAME} ({self.cluster.floating_address}) is {standby.name}", since_s)

    def step_5_write_through_the_address(self, since_s: float) -> None:
        """A write through the same name succeeds."""
        self._set(f"after-{self._number}")
        self._say("5. git kv set through the same name: ok", since_s)

    def lost(self) -> set[str]:
        """Acknowledged keys that the cluster does not have."""
        lost: set[str] = set()
        for tree, acknowledged in self._acknowledged.items():
            shown = self.client.git("kv", "--json", "list", cwd=tree).out
            lost |= acknowledged - {entry["key"] for entry in json.loads(shown)}
        return lost

    def _measure(self, pusher: Pusher, how: str, since_s: float) -> None:
        pusher.wait_accepted(since_s)
        pushes = pusher.stop()
        acknowledged = {push.what for push in pushes if push.ok}
        self._acknowledged[WRITER] |= acknowledged
        failed = [push for push in pushes if not push.ok]
        assert not failed, f"a writer noticed the failover: {failed}"
        lost = len(self.lost())
        waited_s = longest_gap_s(pushes, since_s)
        note(Result(f"leader: {how}", waited_s, len(acknowledged), lost))
        self._say(
            f"   a writer in a loop waited {waited_s:.2f} s; {len(acknowledged)} acknowledged, {lost} lost"
        )
        assert lost == 0

    def _set(self, key: str) -> None:
        self.client.git("kv", "set", key, "value", cwd=TREE)
        self._acknowledged[TREE].add(key)

    def _who_answers(self) -> str:
        done = self.client.ssh("status", "--json", ok=False)
        answered = done.status in {0, 1, 2, 3}  # well, warning, critical, unknown: ssh's own failure is 255
        return str(json.loads(done.out)["node"]) if answered and done.out else ""

    def _paramiko(self, node: Node) -> Done:
        pinned = self.client.run("cat", f"{HOME}/.ssh/known_hosts").out.split(maxsplit=1)[1]
        self.client.put(f"{HOME}/.ssh/known_hosts_paramiko", f"[{node.address}]:{SSH_PORT} {pinned}")
        where = (node.address, str(SSH_PORT), TREE)
        return self.client.run("/opt/stargate/bin/python", "-c", PARAMIKO, *where, ok=False)

    def _say(self, text: str, since_s: float | None = None) -> None:
        now_s = time.monotonic()
        after = f" ({now_s - since_s:.2f} s after the stop began)" if since_s is not None else ""
        print(f"[{now_s - self._began_s:7.2f} s] {self.cluster.name}: {text}{after}", flush=True)
