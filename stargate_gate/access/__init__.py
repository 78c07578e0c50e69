"""Who may come in and do what: keys of users, their options, allowed source addresses, host keys."""
