"""The LightningModule and what surrounds it while it trains."""
