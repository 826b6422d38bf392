"""A small seeded run and ablation, whose recorded numbers no change of structure may move.

python -m tests.pin            # compare with the record, byte for byte; only on one machine
python -m tests.pin record     # write the record anew, when numbers were meant to move
"""
