"""What is trained: a recipe chosen for images, fitted into a time, or run fold by fold."""
