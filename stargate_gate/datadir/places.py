"""Names inside a data_dir that programs need which cannot wait for layout.py to load."""

CONTROL_SOCKET = "run/control.sock"
