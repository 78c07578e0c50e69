"""`stargate address release`, as a service manager runs it after a node has ended."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stargate_gate.datadir.layout import open_data_dir
from stargate_gate.datadir.locks import NodeLock
from tests.support.cluster import STARGATE
from tests.support.scripts import script


class Machine:
    """A node's YAML file on a machine where the node does not run, and programs that are told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.told = root / "told"
        self.good = script(
            root / "good", f'echo "$STARGATE_ROLE $STARGATE_REASON $STARGATE_TERM" >>{self.told}'
        )
        self.bad = script(root / "bad", "echo no luck; exit 1")
        self.data_dir = root / "data"

    def release(self, *programs: Path, options: tuple[str, ...] = ()) -> tuple[int, str]:
        """Exit status and stderr, with an item for each program."""
        config: dict[str, Any] = {
            "node": {"name": "node-a", "data_dir": str(self.data_dir)},
            "address": [{"kind": "command", "command": str(program)} for program in programs],
        }
        file = self.root / "node.yaml"
        file.write_text(yaml.safe_dump(config))
        done = subprocess.run(
            [*STARGATE, "address", "release", "-c", str(file), *options],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.stdout == ""
        return done.returncode, done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_every_item_is_released_also_if_another_fails(machine: Machine) -> None:
    """With the reason that it is a command, and no term, since none is known; 69 tells of the failure."""
    assert machine.release(machine.bad, machine.good) == (
        69,
        f"stargate: command {machine.bad} is not released: {machine.bad} exited 1: no luck\n",
    )
    assert machine.told.read_text() == "standby command 0\n"
    assert machine.release(machine.good) == (0, "")


def test_without_items_there_is_nothing_to_do(machine: Machine) -> None:
    """So that a service manager can run it everywhere."""
    assert machine.release() == (0, "")


def test_nothing_is_made_where_no_node_ever_ran(machine: Machine) -> None:
    """It may be run by root: what it made, the node could not use."""
    assert machine.release(machine.good)[0] == 0
    assert not machine.data_dir.exists()


def test_a_running_node_is_not_disturbed(machine: Machine) -> None:
    """It moves the address itself; --force is for one that hangs."""
    with NodeLock.acquire(open_data_dir(machine.data_dir)):
        status, said = machine.release(machine.good)
        assert status == 69
        assert "another stargate serve runs on this data_dir" in said
        assert "stop it first, or use --force if it hangs" in said
        assert not machine.told.exists()
        assert machine.release(machine.good, options=("--force",)) == (0, "")
    assert machine.told.read_text() == "standby command 0\n"


def test_a_data_dir_that_cannot_be_used_does_not_keep_the_address(machine: Machine) -> None:
    """A broken disk may be why the node has ended."""
    datadir = open_data_dir(machine.data_dir)
    datadir.node_lock.mkdir()
    assert machine.release(machine.good) == (0, "")
    assert machine.told.exists()
