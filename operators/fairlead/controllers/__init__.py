"""The operator: what the objects that users apply should be made of, decided by pure functions and applied by thin shells."""
