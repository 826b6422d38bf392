"""Explain single films: where the network looked, which units decided, how well maps meet boxes.

Examples:
  python scripts/explain.py checkpoint=RUN                             # films of its test split
  python scripts/explain.py checkpoint=RUN images=film.dcm labels=[Pneumonia]
  python scripts/explain.py checkpoint=RUN boxes=auto                  # pointing score in boxes
  python scripts/explain.py 'checkpoint=[FOLD1,FOLD2,FOLD3]' boxes=auto
"""

from fluoroscope.command.entry import command

if __name__ == "__main__":
    command(
        __doc__,
        "explain",
        "fluoroscope.explanation.explain:main",
        "fluoroscope.config.explain:check_explain",
    )
