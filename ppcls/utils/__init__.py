"""Small parts that every package may use; they know nothing of networks, data or recipes."""
