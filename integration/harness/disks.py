"""A small ext4 on a loop device of its own: a disk that an error can turn read-only, as a real one does."""

from typing import Any

from integration.harness.machine import Machine, eventually

NAME = "disk"
# The device goes with this process and its mounts: `losetup -d` of a device in use only marks it for that.
MAKE = """
truncate -s 16M /image
mkfs.ext4 -q -E root_owner=2222:2222 /image
device=$(losetup -f)
[ -e "$device" ] || mknod "$device" b 7 "${device#/dev/loop}"
losetup "$device" /image
exec 9<"$device"
losetup -d "$device"
echo "made $device"
exec sleep infinity
"""
COMMAND = ["sh", "-euc", MAKE]
OPTIONS: dict[str, Any] = {
    "cap_add": ["SYS_ADMIN"],
    "security_opt": ["apparmor=unconfined"],
    "devices": ["/dev/loop-control:/dev/loop-control:rwm"],
    "device_cgroup_rules": ["b 7:* rmw"],
}


def volume_options(disk: Machine) -> dict[str, str]:
    """Options of a volume on the disk that the machine has made."""
    return {"type": "ext4", "device": _device(disk), "o": "errors=remount-ro"}


def turn_read_only(disk: Machine) -> None:
    """The kernel finds an error on the file system, and takes no write any more until it is mounted anew."""
    name = _device(disk).rpartition("/")[2]
    disk.sh(f"mount -o remount,rw /sys; echo broken >/sys/fs/ext4/{name}/trigger_fs_error", user="root")


def _device(disk: Machine) -> str:
    said = eventually(
        lambda: [line for line in disk.logs().splitlines() if line.startswith("made ")], "a disk"
    )
    return said[0].split()[1]
