"""A file for each family of networks, which `registry` finds by itself; none imports Paddle."""
