"""The feed from PostgreSQL's write-ahead log: one persistent logical slot, read by whoever holds it (the leader)."""

from lastcall.feed.wal.service import WalFeed

__all__ = ["WalFeed"]
