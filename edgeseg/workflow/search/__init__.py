"""`edgeseg search`: points of network x width x size x pruning x precision, tried until the budget is spent (ADR 0015).

`space` = what there is to try, `front` and `stopping` = what is better and what is not worth going on with, `journal` = what was tried,
`speed` = latency on a machine that is busy training, `trial` = one point through the chain's own steps, `worker` = the loop,
`results` = what comes out of it.
"""
