"""Make once, before any run: a resized copy of a collection, its audit, a backbone's weights.

The copy has 8-bit images and an audited study table; training reads only it, with data=prepared.
Run the same command again to continue an interrupted copy. Weights are for machines without a
network; a second call checks their SHA-256 and fetches only missing or damaged files.

Examples:
  python scripts/prepare.py data=nih14 data.root=DIR size=512           # into data/nih14-512px
  python scripts/prepare.py data=nih14 data.root=DIR audit=only         # the report alone
  python scripts/prepare.py data=folder data.root=DIR size=384 format=jpeg out=DIR2
  python scripts/prepare.py weights=efficientnet_b4.ra2_in1k            # into weights/
  python scripts/prepare.py 'weights=[efficientnet_b4,convnext_tiny.fb_in22k]' out=DIR
"""

from fluoroscope.command.entry import command

if __name__ == "__main__":
    check = "fluoroscope.config.prepare:check_job"
    command(__doc__, "prepare", "fluoroscope.prepare.prepare_jobs:main", check)
