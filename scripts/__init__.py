"""Programs of the project that are run by hand or by CI."""
