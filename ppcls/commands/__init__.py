"""The commands of `ppcls`: for each, `add_*` tells its options and `run_*` runs it."""
