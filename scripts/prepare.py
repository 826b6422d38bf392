"""Fetch, where there is a network, what a machine without one needs: the weights of backbones.

A second call checks what is there against its SHA-256 and fetches nothing that is whole.

Examples:
  python scripts/prepare.py weights=efficientnet_b4.ra2_in1k            # into weights/
  python scripts/prepare.py weights=efficientnet_b4                     # timm's default tag
  python scripts/prepare.py 'weights=[efficientnet_b4,convnext_tiny.fb_in22k]' out=DIR
"""

from fluoroscope.cli import command

if __name__ == "__main__":
    check = "fluoroscope.prepare.settings:check_prepare"
    command(__doc__, "prepare", "fluoroscope.prepare.weights:main", check)
