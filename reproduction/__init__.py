"""All that turns the method into evidence: data, training, report, deployed networks, commands."""
