"""Scoring with a finished model: files and datasets (`run`), and data frames (`estimator`, scikit-learn compatible)."""
