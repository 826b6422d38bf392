"""Score a checkpoint again: on its own test split, or on another collection.

Examples:
  python scripts/evaluate.py checkpoint=RUN/checkpoints/best.ckpt
  python scripts/evaluate.py checkpoint=RUN/checkpoints/best.ckpt data.root=MOVED_TO
  python scripts/evaluate.py checkpoint=RUN/checkpoints/best.ckpt data=nih14 data.root=DIR split=all
"""

from fluoroscope.command.entry import command

if __name__ == "__main__":
    command(
        __doc__,
        "evaluate",
        "fluoroscope.evaluate:main",
        "fluoroscope.config.evaluate:check_evaluate",
    )
