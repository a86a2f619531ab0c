"""Compare three ways of training on a medical corpus."""
