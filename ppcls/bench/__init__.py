"""How long networks take on this machine, by engine, precision, batch size and threads."""
