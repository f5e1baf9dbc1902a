"""Pictures of RDMs, of maps of stimuli, and of evaluations."""
