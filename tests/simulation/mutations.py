"""One rule broken at a time: for each, the simulator has to find an invariant that does not hold."""

from tests.simulation import broken
from tests.simulation import broken_leader as leader
from tests.simulation import broken_standby as standby
from tests.simulation.mutation import Mutation
from tests.simulation.rules import Rules

_TROUBLE = ("kill", "power loss", "broken connection", "lost lock", "pause")
_TERMS = ("lost lock", "lost lock", "broken connection", "half-broken connection")
_RECORD = ("lost lock", "pause", "write hangs", "late write lands", "write fails", "isolation", "kill")
_WRITES = ("write fails", "write fails", "write fails", "isolation", "broken connection")
_MIRROR = ("broken connection", "half-broken connection", "isolation", "kill", "slow network")
_ROLLED_BACK = ("backup", "rollback", "kill", "isolation")
_HELD = ("slow network", "isolation")
_FORCED = ("override", "isolation", "kill", "power loss")
_AGAIN = ("forward", "several", "again", "again")

MUTATIONS = (
    Mutation(
        "the claim does not read again",
        Rules(claim=broken.claim_without_reading_again),
        "I2",
        _RECORD,
        seed=83,
    ),
    Mutation(
        "the claim goes into the former's half",
        Rules(claim=broken.claim_in_the_formers_half),
        "I2",
        _RECORD,
        seed=40,
    ),
    Mutation(
        "a term is not claimed first",
        Rules(claim=broken.claim_the_number_after_the_record),
        "I1 I2",
        _RECORD,
        seed=38,
    ),
    Mutation(
        "a write does not look around",
        Rules(write=broken.write_without_looking_around),
        "I2",
        _RECORD,
        seed=22,
    ),
    Mutation(
        "what was decided before the lock counts under it",
        Rules(claim=broken.claim_whatever_is_there, look_again_under_lock=False),
        "I2",
        _RECORD,
        seed=793,
    ),
    Mutation("anybody may lead", Rules(decide=broken.anybody_leads), "I2"),
    Mutation(
        "a name is enough to lead", Rules(decide=broken.names_are_enough), "I2", ("reinstallation", "kill")
    ),
    Mutation(
        "whoever was rolled back may lead",
        Rules(decide=broken.incarnations_do_not_count),
        "I2",
        _ROLLED_BACK,
        gap=60,
        seed=6,
    ),
    Mutation(
        "who joins again keeps its incarnation",
        Rules(),
        "I2",
        ("backup", "full disk", "rollback"),
        gap=60,
        patches=leader.SAME_INCARNATION_AGAIN,
        seed=3,
    ),
    Mutation(
        "the highest term seen is forgotten",
        Rules(decide=broken.terms_are_forgotten, distrust=lambda *_: None),
        "I1 I2",
        ("old copy of the record", "kill", "lost lock"),
        gap=80,
    ),
    Mutation(
        "an uncertain write is not counted",
        Rules(needed=lambda now, _: frozenset(now.sync_set)),
        "I2",
        _WRITES,
        gap=25,
        seed=148,
    ),
    Mutation(
        "of two uncertain writes the last counts",
        Rules(either=lambda _, last: last),
        "I2",
        _WRITES,
        gap=25,
        seed=156,
    ),
    Mutation(
        "who is late is not waited for", Rules(), "I2", _MIRROR, patches=leader.LATE_IS_NOT_WAITED_FOR, seed=2
    ),
    Mutation(
        "who is required again is not waited for",
        Rules(),
        "I2",
        _MIRROR,
        seed=61,
        patches=leader.CATCHING_UP_IS_NOT_WAITED_FOR,
    ),
    Mutation("a confirmed list makes level", Rules(), "I2", _MIRROR, patches=leader.CONFIRMED_IS_LEVEL),
    Mutation(
        "level is who holds what was told before its list",
        Rules(),
        "I2",
        (*_MIRROR, "not reached"),
        patches=leader.LEVEL_FROM_ITS_LIST,
        seed=9,
    ),
    Mutation(
        "who was not checked holds",
        Rules(),
        "I2",
        _TROUBLE,
        gap=150,
        seed=127,
        patches=leader.UNCOVERED_HOLDS,
    ),
    Mutation(
        "who matched once holds",
        Rules(),
        "I2",
        ("slow network", "pause"),
        nodes=4,
        gap=300,
        every=15,
        few=1,
        seed=187,
        patches=leader.MATCHED_FOR_GOOD,
    ),
    Mutation("what was sent is held", Rules(), "I2", patches=leader.SENT_IS_HELD),
    Mutation(
        "strict acknowledges alone",
        Rules(),
        "I2",
        _MIRROR,
        mode="strict",
        seed=54,
        patches=leader.ALONE_IN_STRICT,
    ),
    Mutation("the leader does not sync before", Rules(), "I2", patches=leader.NOT_SYNCED_BEFORE),
    Mutation("a standby does not sync before", Rules(), "I2", patches=standby.NOT_SYNCED),
    Mutation("a standby confirms before it applies", Rules(), "I2", patches=standby.CONFIRMED_AT_ONCE),
    Mutation(
        "a list is confirmed before its work is done", Rules(), "I2", seed=3, patches=standby.CHECKED_AT_ONCE
    ),
    Mutation(
        "what is worked on may equal a list",
        Rules(),
        "I2",
        ("slow network",),
        nodes=4,
        gap=300,
        wishes=("several", "delete"),
        few=1,
        seed=1038,
        patches=standby.NOT_BUSY,
    ),
    Mutation(
        "what an earlier session left is not synced",
        Rules(),
        "I2",
        _MIRROR,
        seed=97,
        patches=standby.NOT_SETTLED,
    ),
    Mutation("objects are not synced", Rules(sync_objects=False), "I2"),
    Mutation(
        "a leader hears of another term",
        Rules(),
        "I2",
        _TERMS,
        gap=60,
        seed=16,
        patches=leader.ANY_TERM_IS_HEARD,
    ),
    Mutation(
        "a standby hears of another term",
        Rules(),
        "I2 I4",
        ("lost lock", "kill", "broken connection"),
        gap=40,
        every=20,
        seed=226,
        patches=standby.ANY_TERM,
    ),
    Mutation(
        "the mirror is not ended before the claim",
        Rules(end_mirror_before_claim=False),
        "I2 I3 I4",
        ("lost lock", "slow network"),
        gap=80,
        seed=17,
    ),
    Mutation(
        "up to date does not wait", Rules(wait_for_advertisement="never"), "I2", _HELD, wishes=_AGAIN, seed=1
    ),
    Mutation(
        "the wait is before the advertisement",
        Rules(wait_for_advertisement="before the capture"),
        "I2",
        _HELD,
        wishes=_AGAIN,
        seed=25,
    ),
    Mutation("the lease does not run out", Rules(lease=False), "I1", seed=2),
    Mutation("the gate is not asked again", Rules(gate_again=False), "I1", ("pause",), gap=60, seed=11),
    Mutation(
        "running pushes are not reaped",
        Rules(reap_pushes=False),
        "I2 I3 I4",
        ("lost lock", "volume out of reach"),
        seed=32,
    ),
    Mutation(
        "no intent is written",
        Rules(),
        "I6",
        ("lost lock",),
        gap=30,
        every=20,
        wishes=("several", "several", "swap"),
        seed=222,
        patches=standby.NO_INTENT,
    ),
    Mutation("nothing is rescued", Rules(), "I4", mode="async", patches=standby.NO_RESCUE),
    Mutation(
        "the rescue comes after the overwriting", Rules(), "I4", mode="async", patches=standby.RESCUE_AFTER
    ),
    Mutation(
        "a full check settles the journal",
        Rules(),
        "I4",
        ("lost lock", "isolation", "volume out of reach"),
        gap=60,
        every=100,
        seed=263,
        patches=standby.SETTLED_IS_REPLICATED,
    ),
    Mutation(
        "a snapshot is newer than its number",
        Rules(),
        "I4",
        ("full check", "full check", "full check", "slow network", "lost lock"),
        gap=20,
        every=15,
        seed=273,
        patches=leader.SNAPSHOTS_HAVE_NO_NUMBER,
    ),
    Mutation(
        "async forgets what only some have",
        Rules(),
        "I4",
        ("isolation", "pause", "kill"),
        mode="async",
        gap=150,
        every=100,
        seed=11107,
        patches=leader.ASYNC_FORGETS,
    ),
    Mutation(
        "a leader notes a push after it",
        Rules(mark_before_push=False),
        "I4",
        ("kill", "lost lock"),
        gap=60,
        seed=97,
    ),
    Mutation(
        "a standby notes a change after it",
        Rules(),
        "I4",
        ("kill", "lost lock"),
        mode="async",
        seed=277,
        patches=standby.MARKED_AFTER,
    ),
    Mutation(
        "what is told is not noted", Rules(), "I4", ("kill", "lost lock"), patches=leader.SENT_IS_NOT_NOTED
    ),
    Mutation(
        "a forced leadership is not distrusted", Rules(distrust_forced=False), "I4", _FORCED, gap=80, seed=75
    ),
    Mutation(
        "a later leader tells of no forced one", Rules(carry_forced=False), "I4", _FORCED, gap=80, seed=75
    ),
    Mutation(
        "a forced leadership is noted before what it means",
        Rules(distrusted=broken.forced_first),
        "I4",
        ("override and crash", "isolation"),
        gap=150,
        seed=75,
    ),
    Mutation("deletions come with creations", Rules(), "I5", recover=True, patches=standby.ONE_TRANSACTION),
    Mutation(
        "a push is one into whatever has the name",
        Rules(ids=False),
        "I2",
        ("slow network",),
        wishes=("forward", "several", "remove repository"),
        few=1,
        seed=4,
    ),
    Mutation(
        "a job that failed is done", Rules(), "I2", ("full disk", "isolation"), patches=standby.FAILED_IS_DONE
    ),
)
