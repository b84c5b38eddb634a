"""The verbs of edgeseg, one module a group: a request in, a result out. No printing here; the face is `edgeseg.cli`."""
