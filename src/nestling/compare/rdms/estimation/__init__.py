"""Estimators of dissimilarities from patterns: noise normalisation, cross-validation, repeats."""
