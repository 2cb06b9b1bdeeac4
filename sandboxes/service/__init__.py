"""What can be done with sandboxes, whoever asks for it."""
