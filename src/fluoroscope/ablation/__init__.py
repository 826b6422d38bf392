"""Train many heads on one frozen backbone."""
