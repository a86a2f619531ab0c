"""Training: the LightningModule, its callbacks, strategies and checks."""
