"""Tables, `results.json` and the page of a run: plain facts in (`model`), text out; runs nothing and needs no torch."""
