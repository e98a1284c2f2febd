"""C.A.T., the Combat Assistance Toolkit: war calling for factions of the game Torn."""
