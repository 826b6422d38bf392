import sys

from fluoroscope.launch import stopping

if sys.argv[0].split("/")[-2:-1] == ["scripts"]:  # python scripts/NAME.py, before longer imports
    stopping.listen()
