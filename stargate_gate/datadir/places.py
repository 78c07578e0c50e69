"""The path of the control socket, for programs that must start fast and so do not import layout.py."""

CONTROL_SOCKET = "run/control.sock"
