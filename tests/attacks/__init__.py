"""Attacks on real nodes with default settings: bounded, on loopback only, with checks during each.

    make attack                             all of them
    make attack ATTACK='--short kex door'   these two, with a fraction of the load, as `make test` does

Each file is one kind of attack and has one function `attack(target)`; scenarios.py lists them. `Target`
(target.py) is the cluster, a well-behaved client at another loopback address, and the checks. `Target.check`
has what must be true during every attack: no node ends, a push from 127.0.0.2 succeeds, the node's own
process stays below MAX_NODE_MIB. A file may check more, such as that a restarted standby joins the sync set
again.

Durations are printed as ratios to those on the idle cluster. Only the usual limits of tests bound them, so no
attack fails because the machine is loaded.
"""
