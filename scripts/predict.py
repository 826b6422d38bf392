"""Predict films: calibrated probabilities, decisions and warnings, one row per image.

Repeat the command to continue one that was interrupted.

Examples:
  python scripts/predict.py checkpoint=RUN images=FOLDER out=predictions.csv
  python scripts/predict.py checkpoint=RUN images=film.dcm out=film.csv
  python scripts/predict.py checkpoint=RUN images=films.csv out=films.parquet strict=true
"""

from fluoroscope.command.entry import command

if __name__ == "__main__":
    command(
        __doc__,
        "predict",
        "fluoroscope.prediction.predict:main",
        "fluoroscope.config.predict:check_predict",
    )
