"""Operations: health, metrics, startup checks, and the command `check`."""
