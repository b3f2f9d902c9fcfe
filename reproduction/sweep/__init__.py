"""All rows of the tables, several seeds each, on one machine or on a cluster."""
