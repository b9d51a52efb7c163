"""`ppcls serve`: exported folders as a service.

One process speaks HTTP (`app`, `v2`, `server`); each model runs in a worker process of its own
(`worker`), which decodes, batches and predicts, and which is replaced when it dies (`model`).
"""
