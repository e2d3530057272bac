"""KServe's kinds as Fairlead serves them: names, types, CRDs.

Importing this package costs nothing: the model server needs only `fairlead.api.names`.
"""
