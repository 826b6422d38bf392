"""Train a chest x-ray classifier and watch the units of its head.

Examples:
  python scripts/train.py backbone=lite0       # built-in phantom x-rays, a small network, on a CPU
  python scripts/train.py data=nih14 data.root=DIR 'data.labels=[Pneumonia]'    # B4, on a GPU
  python scripts/train.py -m head.activation=relu,gelu,elu seed=1,2,3           # one run each
"""

from fluoroscope.command.entry import command

if __name__ == "__main__":
    command(__doc__, "train", "fluoroscope.train:main", "fluoroscope.config.train:check_run")
