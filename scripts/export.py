"""Write a trained model as one file: pixels in, calibrated probabilities out.

Examples:
  python scripts/export.py checkpoint=RUN
  python scripts/export.py checkpoint=RUN format=torch out=model.pt2
  python scripts/export.py checkpoint=RUN/checkpoints/best.ckpt images=FOLDER
"""

from fluoroscope.command.entry import command

if __name__ == "__main__":
    command(
        __doc__,
        "export",
        "fluoroscope.export.export:main",
        "fluoroscope.config.export:check_export",
    )
