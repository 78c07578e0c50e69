"""Attacks on real nodes with default settings: bounded, on loopback only, and what must hold meanwhile.

    make attack                             all of them
    make attack ATTACK='--short kex door'   these two, with a fraction of the load, as `make test` does

A file is one kind of attack and has one function `attack(ground)`; scenarios.py lists them. `Ground`
(ground.py) is the cluster, the good client at another loopback address, and the checks. What every attack
must leave standing is `Ground.holds`: no node ends, a good push from 127.0.0.2 gets through, the node's own
process stays below MAX_NODE_MIB. A file may ask for more, as that a restarted standby gets in again.

Times are printed as ratios to the same thing on the idle cluster, and bounded by nothing but the limits that
tests have anyway: a loaded machine fails no attack.
"""
