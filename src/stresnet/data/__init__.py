"""Catalogs of videos, prepared stores, and clips cut from them."""
