"""What an operator looks at: health, metrics, the checks at the start, and `check`."""
