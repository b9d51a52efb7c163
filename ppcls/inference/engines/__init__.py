"""Engines: what runs an exported network. Each is one file here; `ENGINES` lists them."""
