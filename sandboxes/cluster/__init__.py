"""One cluster: reads answered by the informer, writes with retries."""
