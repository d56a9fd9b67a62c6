"""A stateful machine over the guard: agents, people, faults, clocks and two processes, in any order.

`machine` draws what happens, `simulation` does it, `model` keeps account of it, and `invariants` compares that account
with what reached Fastn, the ledger and the audit log. `faults` plants faults in the guard that the machine must find.
"""
