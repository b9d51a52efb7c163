"""Learning from a teacher: losses between two networks, teachers, and the task made of them."""
