"""The report: a static site from the store, to be opened from disk. Nothing in it is fetched from elsewhere."""
