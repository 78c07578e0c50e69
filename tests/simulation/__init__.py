"""A simulator of the pure core: clusters of two to five nodes in trouble, seeded, one step at a time.

    python -m tests.simulation --seed 1 --steps 20000000 [--nodes 3] [--mode sync|strict|async]

The decisions are the product's own modules: election/{steps,record,eligibility}, election.term._both,
replication/{syncset,backlog,delta,work,intent,unreplicated}, repos/plan. The shells around them are
modelled, each effect on disk, volume or network a step of its own: process.py (elector, tenure, campaign),
leading.py and feeding.py (term, feed, keeper), following.py (mirror, session, apply), pushing.py (the gate).
rules.py names what the shells see to. Of these the shells do not see to all yet: `sync_first`,
`busy_is_different`, `read_before_syncing`, `shown_is_told_anew`, `rescue`, `restamp_journal`,
`snapshots_are_numbered` and `forget_in_async` are how it has to be for the promises to hold; mutations.py
shows what happens else.

    engine.py      programs, their order, the clock       volume.py, disk.py, network.py   what fails
    faults.py      the plan of an episode                 client.py                        who pushes
    invariants.py  what must hold after each step         episode.py, campaigns.py         runs of it
    mutations.py   one broken rule each                   shrinking.py                     traces to read
"""
