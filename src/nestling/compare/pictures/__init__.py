"""Plots of RDMs, of stimuli in two dimensions, and of evaluations."""
