"""Who may come in and what they may do: keys of users and their options, allowed addresses, host keys."""
