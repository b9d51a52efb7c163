"""The pages of docs/ that are generated: needed in a clone only."""
