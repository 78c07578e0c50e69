"""Who may begin to log in when many want to, as plain values; and the passes of nodes."""

from dataclasses import replace

import pytest

from stargate_gate.gate.ssh.login_places import PATIENCE_S, PlaceLimits, drop_chance, judge
from stargate_gate.net.addresses import network_of
from stargate_gate.net.crowding import Place
from stargate_gate.net.peer_pass import WINDOW_S, Passes, make_pass

LIMITS = PlaceLimits(full=50, per_address=20, drop_from=25, drop_percent=30)
LATE = 100.0
LUCKY, UNLUCKY = 0.999, 0.0  # against early drop


def crowd(**counts: int) -> list[Place[str]]:
    """So many from each address, all of them just arrived."""
    return [Place(f"{block}{n}", block, LATE) for block, count in counts.items() for n in range(count)]


def test_a_free_place_is_given():
    verdict = judge(LIMITS, crowd(mallory=19), "mallory", LATE, UNLUCKY)
    assert (verdict.admitted, verdict.instead_of) == (True, None)


def test_one_address_never_has_more_than_its_cap():
    verdict = judge(LIMITS, crowd(mallory=20), "mallory", LATE, LUCKY)
    assert (verdict.admitted, verdict.reason) == (False, "per_address")


def test_users_of_the_attackers_address_get_the_place_of_one_that_has_had_its_time():
    """The one with the least progress, and of those the oldest."""
    standing = crowd(mallory=20)
    standing[3] = replace(standing[3], since_s=LATE - PATIENCE_S)
    standing[5] = replace(standing[5], since_s=LATE - PATIENCE_S - 1)
    standing[7] = replace(standing[7], since_s=LATE - 9, progress=1)
    assert judge(LIMITS, standing, "mallory", LATE, LUCKY).instead_of == "mallory5"


@pytest.mark.parametrize("chance", [LUCKY, UNLUCKY])
def test_a_user_at_another_address_always_gets_in(chance: float):
    """Three addresses have just filled the pool: a place of one of them is freed."""
    verdict = judge(LIMITS, crowd(a=17, b=17, c=16), "alice", LATE, chance)
    assert verdict.admitted
    assert verdict.instead_of is not None
    assert verdict.instead_of[0] in "ab"


def test_fifty_addresses_keep_a_newcomer_out_only_until_their_patience_ends():
    standing = [Place(f"s{n}", f"address{n}", LATE) for n in range(50)]
    assert not judge(LIMITS, standing, "alice", LATE + 1, LUCKY).admitted
    assert judge(LIMITS, standing, "alice", LATE + PATIENCE_S, LUCKY).instead_of == "s0"


def test_a_full_pool_never_grows_and_a_cap_is_never_passed():
    """Also when another address has as many and older ones."""
    standing = [replace(one, since_s=0) for one in crowd(b=20)] + crowd(a=20, c=10)
    assert judge(LIMITS, standing, "a", LATE, LUCKY).reason == "per_address"
    assert judge(LIMITS, standing, "a", LATE, LUCKY).instead_of is None


def test_early_drop_is_that_of_sshd():
    """MaxStartups 25:30:50."""
    chances = [drop_chance(LIMITS, total) for total in (0, 24, 25, 49, 50)]
    assert chances == [0.0, 0.0, 0.3, pytest.approx(0.3 + 0.7 * 24 / 25), 1.0]
    crowded = crowd(a=10, b=10, c=10)
    assert judge(LIMITS, crowded, "a", LATE, LUCKY).admitted
    assert judge(LIMITS, crowded, "a", LATE, UNLUCKY).reason == "early_drop"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", None),
    ],
)
def test_an_ipv6_network_counts_as_one_address(address: str, network: str | None):
    assert network_of(address) == network


def test_a_pass_is_valid_once_and_for_a_limited_time():
    passes, now_s = Passes(b"secret"), 1_800_000_000.0
    shown = b"SSH-2.0-Stargate " + make_pass(b"secret", now_s, b"n" * 12).encode() + b"\r"
    assert passes.take(shown, now_s + 1)
    assert not passes.take(shown, now_s + 2)
    for late in (-WINDOW_S - 1, WINDOW_S + 1):
        assert not Passes(b"secret").take(shown, now_s + late)


@pytest.mark.parametrize("line", [b"", b"SSH-2.0-Stargate", b"SSH-2.0-Stargate peer-1-2-3"])
def test_what_is_no_pass_does_not_count(line: bytes):
    assert not Passes(b"secret").take(line, 1.0)


def test_a_pass_of_another_cluster_or_with_another_time_does_not_count():
    now_s = 1_800_000_000.0
    passes, good = Passes(b"secret"), make_pass(b"secret", now_s, b"n" * 12)
    assert not passes.take(make_pass(b"other", now_s, b"n" * 12).encode(), now_s)
    assert not passes.take(good.replace("1800000000", "1800000001").encode(), now_s)
    assert passes.take(good.encode(), now_s)
