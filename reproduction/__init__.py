"""What turns the method into evidence: data, training, report, deployed networks and commands."""
