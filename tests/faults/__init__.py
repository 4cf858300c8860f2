"""Faults on purpose: a load, a nemesis and a checker for the whole platform; docs/reliability.md.

oracle               inputs of which every output is known beforehand
history              what clients asked, and what they were told
calls                how they call
jobs, uploader, speaker, load
                     what they do
proxy, harm          links between processes, and what they do to bytes
clock                clocks that can be stepped
disk                 file systems that can be full
system               the platform under test, behind such links
fault, catalogue     the faults
nemesis              when they strike
promises             the checker: history and final state against what the platform promises
trial                one seed: all of these together
"""
