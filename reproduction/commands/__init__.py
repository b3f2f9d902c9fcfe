"""The other commands of `reproduce`, one in each file."""
