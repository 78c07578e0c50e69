"""A simulator of the cores: clusters of two to five nodes in trouble, seeded, one step at a time.

    python -m tests.simulation --seed 1 --steps 20000000 [--nodes 3] [--mode sync|strict|async]
    python -m tests.simulation --long --total 100000000 --state FILE    in many sittings; see long_run.py

The decisions are the product's own code: `LeaderTerm` (replication/leader/term.py) and `StandbySession`
(replication/standby/core.py) with all of their parts; election/eligibility.py, incarnation.py, flock/steps.py
and flock/slots.py; replication/rescue/unreplicated.py and values.py; repos/plan.py, identities.py and
register.py. What is around them is modelled, and each effect on disk, volume or network is a step of its own:
process.py (elector, lease, lifecycle), leading.py (a term's record, stepping down), term_shell.py and
feeding.py (carry out the LeaderTerm's instructions), following.py (carries out the StandbySession's),
applying.py (steps of jobs), journal.py, store.py, pushing.py (the gate). rules.py lists what the models do;
mutations.py shows what happens if they do not.

Left out, since it decides nothing here: HEAD, broken refs, maintenance, the hook and the
leading lock, clients that go away, nodes of another version, and limits of time on a node's own disk.

    engine.py      programs, their order, the clock       volume.py, disk.py, network.py   what fails
    faults.py      the plan of an episode                 client.py                        who pushes
    invariants.py  what must hold after each step         episode.py, campaigns.py         runs of it
    mutation.py, broken.py, broken_leader.py, mutations.py   one broken rule each
    shrinking.py   traces to read                         long_run.py                      many sittings
"""
