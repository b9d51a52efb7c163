"""From PaddleClas's configs to recipes of ours."""
