"""A simulator of the cores: clusters of two to five nodes in trouble, seeded, one step at a time.

    python -m tests.simulation --seed 1 --steps 20000000 [--nodes 3] [--mode sync|strict|async]
    python -m tests.simulation --long --total 100000000 --state FILE    in many sittings; see long_run.py

The decisions are the product's own: LeaderTerm of replication/leader as a whole; election/{steps,slots,
eligibility}, election.term._both, replication/{delta,job_queue,intent,unreplicated,rescue}, repos/plan. What
is around them is modelled, each effect on disk, volume or network a step of its own: process.py (elector,
lease, lifecycle), leading.py (term), term_shell.py and feeding.py (what carries out the LeaderTerm's
instructions), following.py (mirror, session), applying.py (apply, rescuing), journal.py, pushing.py (the
gate). rules.py names what the models see to; mutations.py shows what happens otherwise.

What is left out, since a step of it decides nothing here: HEAD, broken refs, maintenance, the hook and the
leading lock, clients that go away, nodes of another version, and limits of time on a node's own disk.

    engine.py      programs, their order, the clock       volume.py, disk.py, network.py   what fails
    faults.py      the plan of an episode                 client.py                        who pushes
    invariants.py  what must hold after each step         episode.py, campaigns.py         runs of it
    mutation.py, broken.py, broken_leader.py, mutations.py   one broken rule each
    shrinking.py   traces to read                         long_run.py                      many sittings
"""
