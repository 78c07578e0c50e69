"""What is measured, on real nodes, as distributions and ratios side by side in one run.

python -m bench            everything
python -m bench lag        one of: memory, lag, failover, push, openssh, kv, shell, refs, path
python -m bench --short    a fifth of the rounds: does it work, not how fast
"""
