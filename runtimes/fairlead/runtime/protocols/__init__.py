"""Codecs between the wire and `fairlead.runtime.tensors`: pure functions of bytes, no sockets, no event loop."""
