"""Backbones: `zoo` names them without importing Paddle, the other modules build and count them."""
