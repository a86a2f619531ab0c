"""Holdout gain: how much holdout text helps the model to predict each training document."""
