"""The files for systemd: systemd takes them, they give little away, and they fit the node's own limits."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stargate_gate.config.model import Config
from stargate_gate.share import shared_dir
from tests.support.units import LIMIT_S, seconds, settings

FOLDER = shared_dir("systemd")
UNIT = FOLDER / "stargate.service"
EXPOSURE = 20  # tenths; systemd calls 20 and less "OK", and a plain service has 96
EXPOSURE_WITH_VIP = 25


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=False)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with its drop-in folder, with the programs that are installed here in place of /opt's."""
    shutil.copytree(FOLDER, tmp_path / "units")
    file = tmp_path / "units" / "stargate.service"
    text = file.read_text()
    assert text.count("/opt/stargate/bin/") == 2
    file.write_text(text.replace("/opt/stargate/bin/", f"{Path(sys.executable).parent}/"))
    return file


def test_systemd_takes_the_unit_without_a_word(unit: Path) -> None:
    """Unknown settings, sections and values are warnings, which count."""
    done = run("systemd-analyze", "verify", "--man=no", unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_word_that_systemd_does_not_know_would_be_seen(unit: Path) -> None:
    """In the unit and in the drop-in: the test above can fail."""
    drop_in = unit.parent / "stargate.service.d" / "vip.conf"
    for file in (unit, drop_in):
        before = file.read_text()
        file.write_text(before + "\n[Service]\nProtectEverything=yes\n")
        assert "ProtectEverything" in run("systemd-analyze", "verify", "--man=no", unit).stderr
        file.write_text(before)


def test_its_exposure_is_small(unit: Path) -> None:
    """As `systemd-analyze security` counts it; the capabilities of a vip cost a little."""
    check = ("systemd-analyze", "security", "--offline=true", "--no-pager")
    with_vip = run(*check, f"--threshold={EXPOSURE_WITH_VIP}", unit)
    assert with_vip.returncode == 0, with_vip.stdout[-200:]
    shutil.rmtree(unit.parent / "stargate.service.d")
    alone = run(*check, f"--threshold={EXPOSURE}", unit)
    assert alone.returncode == 0, alone.stdout[-200:]
    unit.write_text(
        "".join(line for line in unit.read_text().splitlines(keepends=True) if "Protect" not in line)
    )
    assert run(*check, f"--threshold={EXPOSURE}", unit).returncode != 0


def test_its_times_fit_those_of_the_node() -> None:
    """Stepping down has time to finish, and systemd's watchdog is behind the node's own."""
    election, unit = Config().election, settings(UNIT)
    assert seconds(unit["TimeoutStopSec"][0]) > 2 * election.drain_s + 20
    assert seconds(unit["WatchdogSec"][0]) > 2 * election.watchdog_s
    assert seconds(unit["RestartSec"][0]) < election.lease_s


def test_a_reload_hangs_the_node_up() -> None:
    """`systemctl reload stargate`: what that does is in tests/scenarios/test_reload.py."""
    assert settings(UNIT)["ExecReload"] == ["/bin/kill -HUP $MAINPID"]


@pytest.mark.parametrize("setting", ["ExecStart", "ExecStopPost"])
def test_what_it_starts_is_a_command(setting: str) -> None:
    """Each word before its -c FILE; a dash in front only says that a failure is no failure of the unit's."""
    program, *words = settings(UNIT)[setting][0].removeprefix("-").split()
    assert (program, words[-2:]) == ("/opt/stargate/bin/stargate", ["-c", "/etc/stargate/stargate.yaml"])
    done = run(Path(sys.executable).parent / "stargate", *words[:-2], "-h")
    assert done.returncode == 0
    assert "--config" in done.stdout


def test_the_user_and_the_folders_are_made(tmp_path: Path) -> None:
    """By systemd itself, below another root: owners if this is root, modes in any case."""
    (tmp_path / "etc").mkdir()
    made = run("systemd-sysusers", f"--root={tmp_path}", FOLDER / "sysusers.d" / "stargate.conf")
    assert made.returncode == 0, made.stderr
    name, _, uid, gid, _, home, shell = (tmp_path / "etc" / "passwd").read_text().strip().split(":")
    assert (name, uid, home, shell) == ("git", "2222", "/var/lib/stargate", "/usr/sbin/nologin")
    done = run("systemd-tmpfiles", "--create", f"--root={tmp_path}", FOLDER / "tmpfiles.d" / "stargate.conf")
    configuration, data = tmp_path / "etc" / "stargate", tmp_path / "var" / "lib" / "stargate"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (configuration, data)] == [0o750, 0o700]
    if os.geteuid() == 0:
        assert done.returncode == 0, done.stderr
        owners = [(path.stat().st_uid, path.stat().st_gid) for path in (configuration, data)]
        assert owners == [(0, int(gid)), (int(uid), int(gid))]
