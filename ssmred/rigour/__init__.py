"""Rigorous verification: certificates recomputed in ball arithmetic from the stored files alone.

Nothing here imports the code that issues certificates. Needs the extra: ``pip install
'ssmred[rigour]'``.
"""

from ssmred.rigour.verifier import Check, Enclosure, verify

__all__ = ["Check", "Enclosure", "verify"]
