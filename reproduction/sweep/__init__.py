"""Run many rows and seeds on one machine or on a cluster."""
