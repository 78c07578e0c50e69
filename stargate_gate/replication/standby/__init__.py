"""The standby's side: it follows the leader and makes its repositories equal to the leader's."""
