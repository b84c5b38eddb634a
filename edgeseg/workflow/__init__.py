"""The verbs of edgeseg: a request in, a result out. No printing here; the face is `edgeseg.cli`.

The chain and its steps, one bundle, the devices and the zoo lie here. What a verb is made of lies in a folder each, in the order of the
chain: `learn`, `compress`, `bundle`, `check` (with `parity`), `measure`, `show`; and `search` goes round all of it.
"""
