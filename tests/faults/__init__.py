"""Faults on purpose: a load, a nemesis and a checker for the whole platform; docs/reliability.md.

oracle      inputs of which every output is known beforehand
history     what clients asked, and what they were told
load        the clients
proxy       links between processes, which can be cut, slowed and made to forget
system      the platform under test, behind such links
nemesis     the faults, and when they strike
promises    the checker: history and final state against what the platform promises
trial       one seed: all of these together
"""
