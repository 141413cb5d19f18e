"""How well a trained classifier does."""
