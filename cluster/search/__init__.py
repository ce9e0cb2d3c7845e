"""What a sweep tries and which trials go on, decided reproducibly from a ledger in the store. See `cluster.search.director`."""
