"""Images and batches; nothing here imports paddle, so data workers stay light."""
