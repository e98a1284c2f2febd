"""feed: committed transactions, in commit order."""
