"""The ways in: each door speaks one transport, decodes with `protocols`, and calls a model's runner."""
