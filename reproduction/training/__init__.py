"""A row of a published table, trained: a folder of results."""
