"""Kills and freezes the movers' processes around every step that cannot be taken back, on a region of its own."""
