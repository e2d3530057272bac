"""`make demo`: two models of handwritten digits, one rolled out over the other under traffic, every answer checked."""
